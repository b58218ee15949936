"""The public functions that measure models and leave them as they are, each the work of one command."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from redtest_onnx.checks import Positive, check
from redtest_onnx.data.open import DataLike
from redtest_onnx.errors import InputError
from redtest_onnx.layers.granularity import GranularityChoice
from redtest_onnx.layers.layer import Layer
from redtest_onnx.library.opening import ModelLike, open_model, opened_workbench
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis, AnalysisSettings, Progress
from redtest_onnx.similarity.analyze import analyze as measure_layers

if TYPE_CHECKING:
    from redtest_onnx.auditing.profile import Profile
    from redtest_onnx.auditing.run import Audit
    from redtest_onnx.ranking.rank import Ranking, RankingSettings
    from redtest_onnx.runtime.activations import ActivationBatch, ExposedModel
    from redtest_onnx.runtime.session import RunOptions
    from redtest_onnx.similarity.compare import Comparison
    from redtest_onnx.similarity.files import FileComparison
    from redtest_onnx.weight_sparsity.measure import Sparsity


def analyze(
    model: ModelLike,
    data: DataLike = None,
    settings: AnalysisSettings | None = None,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """Measure the similarity of all layers and the redundancy score.

    Args:
        model: the model.
        data: samples for it.
        settings: what to measure and on how much data.
        options: device and threads.
        progress: called as work is done.

    Raises:
        InputError: fewer than two layers or four samples, or the model doesn't run on the data.
    """
    check("settings", settings, AnalysisSettings | None)
    settings = settings or AnalysisSettings()
    return measure_layers(opened_workbench(model, data, options, settings.seed), settings, progress)


def expose(
    model: ModelLike,
    tensors: str | Sequence[str] = "all",
    data: DataLike = None,
    *,
    dequantize: bool = False,
    options: RunOptions | None = None,
) -> ExposedModel:
    """A model whose inner tensors are outputs behind its own, with types and shapes declared.

    Args:
        model: the model; it is left as it is.
        tensors: globs over names of tensors, or "all" for every one that follows from the inputs.
        data: samples for it, which decide the branches that are taken, and sizes that can't be inferred.
        dequantize: give quantised tensors whose scale is known as float32.
        options: device and threads.

    Returns:
        The model (write it with `save(exposed.model, path)`), its new outputs, and what stays inside with the
        reason.

    Raises:
        InputError: a pattern names no tensor, or the model doesn't run on the data.
    """
    from redtest_onnx.runtime.activations import expose_tensors

    patterns = (tensors,) if isinstance(tensors, str) else tuple(tensors)
    return expose_tensors(opened_workbench(model, data, options), patterns, dequantize=dequantize)


def activations(
    model: ModelLike,
    data: DataLike = None,
    names: str | Sequence[str] = "all",
    *,
    samples: int | None = None,
    dequantize: bool = False,
    options: RunOptions | None = None,
) -> Iterator[ActivationBatch]:
    """The values of inner tensors, some samples at a time: at most some 128 MiB of them are in memory.

    Args:
        model: the model.
        data: samples for it; 16 synthetic ones if None.
        names: globs over names of tensors, or "all".
        samples: how many samples, from the first on; all if None.
        dequantize: give quantised tensors whose scale is known as float32.
        options: device and threads.

    Yields:
        `indices` of the samples, and `values`: arrays [n, ...] by tensor, or of any shape where no axis holds
        the samples.

    Raises:
        InputError: a pattern names no tensor, or the model doesn't run on the data.
    """
    from redtest_onnx.runtime.activations import SYNTHETIC, expose_tensors, iterate_activations

    check("samples", samples, Positive | None)
    bench = opened_workbench(model, data, options)
    patterns = (names,) if isinstance(names, str) else tuple(names)
    exposed = expose_tensors(bench, patterns, dequantize=dequantize)
    count = samples or (SYNTHETIC if bench.data.synthetic else len(bench.data))
    return iterate_activations(bench, exposed, np.arange(min(count, len(bench.data)), dtype=np.int64))


def find_layers(
    model: ModelLike,
    data: DataLike = None,
    *,
    layers: str = "auto",
    granularity: GranularityChoice = "auto",
    options: RunOptions | None = None,
) -> tuple[Layer, ...]:
    """The layers of a model, what they cost, and which can be removed or why not.

    Args:
        model: the model.
        data: samples for it, which decide its shapes and branches.
        layers: "auto" for the series, "all" for every activation, or a glob over names.
        granularity: how much a layer of the series holds, see `redtest_onnx.layers.granularity.regroup`.
        options: device and threads.

    Raises:
        InputError: the model doesn't run on the data, or no layer is called so.
    """
    from redtest_onnx.similarity.selection import select_layers

    check("granularity", granularity, GranularityChoice)
    return select_layers(opened_workbench(model, data, options), layers, granularity)


def compare_files(
    first: ModelLike,
    second: ModelLike,
    data: DataLike = None,
    *,
    settings: AnalysisSettings | None = None,
    diverges_below: float = 20.0,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> FileComparison:
    """Hold one file of a network against another: float against int8, two operator sets, before and after.

    Args:
        first: the reference.
        second: the other file.
        data: samples for both.
        settings: how the similarity of layers is measured.
        diverges_below: signal-to-noise ratio in dB below which a tensor diverges.
        options: device and threads, and what outputs are.
        progress: called as work is done.

    Raises:
        InputError: a file doesn't run on the data.
    """
    from redtest_onnx.similarity.files import compare_files as hold

    check("settings", settings, AnalysisSettings | None)
    settings = settings or AnalysisSettings()
    sides = [opened_workbench(model, data, options, settings.seed) for model in (first, second)]
    return hold(sides[0], sides[1], settings, diverges_below=diverges_below, progress=progress)


def compare(
    first: ModelLike,
    second: ModelLike | None = None,
    data: DataLike = None,
    *,
    other_data: DataLike = None,
    settings: AnalysisSettings | None = None,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Measure the similarity of all layers of one model with all of another, or on other data.

    Args:
        first: a model.
        second: another one; the first again if None.
        data: samples for both; sample k of one side belongs to sample k of the other.
        other_data: samples for the second; those of `data` if None.
        settings: what to measure and on how much data.
        options: device and threads.
        progress: called as work is done.

    Raises:
        InputError: nothing to compare with, different numbers of samples, or a model doesn't run on its data.
    """
    from redtest_onnx.similarity.compare import compare as cross

    check("settings", settings, AnalysisSettings | None)
    if second is None and other_data is None:
        raise InputError("there is nothing to compare it with", hint="give a second model, or @other_data")
    settings = settings or AnalysisSettings()
    one = opened_workbench(first, data, options, settings.seed)
    other = data if other_data is None else other_data
    two = opened_workbench(first if second is None else second, other, options, settings.seed)
    return cross(one, two, settings, progress)


def audit(
    model: ModelLike,
    data: DataLike = None,
    profile: Profile | str = "onnxruntime-cpu",
    *,
    timed: bool = True,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Check a model before it ships: valid, supported on the target, within budgets, sound in its numbers.

    Args:
        model: the model.
        data: samples for it.
        profile: where it will run: one of the shipped profiles by name, a TOML file by path, or a `Profile`.
        timed: whether latency is measured.
        options: device and threads.
        progress: called as work is done.

    Raises:
        InputError: no such profile, or it names something that is not there.
    """
    from redtest_onnx.auditing.profile import Profile
    from redtest_onnx.auditing.profile_file import load_profile
    from redtest_onnx.auditing.run import audit as check_model

    target = profile if isinstance(profile, Profile) else load_profile(profile)
    return check_model(opened_workbench(model, data, options), target, timed=timed, progress=progress)


def sparsity(
    model: ModelLike, pairs: Sequence[tuple[float, float]] | None = None, *, eta: float = 0.0
) -> Sparsity:
    """Measure the PQ Index of all weights: how sparse they are in effect, and how many are needed.

    Args:
        model: the model.
        pairs: exponents (p, q), 0 < p < q; those of the paper if None.
        eta: how much may be removed: the sum of |w|^p over the removed weights, relative
            to that over the kept ones; above -1, 0: only zeros are removed.

    Raises:
        InputError: the model has no weights, or exponents or eta are out of range.
    """
    from redtest_onnx.weight_sparsity.measure import PAIRS, measure_sparsity

    return measure_sparsity(open_model(model), pairs or PAIRS, eta=eta)


def rank(
    models: Mapping[str, ModelLike] | Iterable[ModelLike] | ModelLike,
    data: DataLike = None,
    settings: RankingSettings | None = None,
    *,
    similarity: AnalysisSettings | None = None,
    options: RunOptions | None = None,
) -> Ranking:
    """Put trained models in order by accuracy, cost and redundancy.

    Args:
        models: the models, by name or one after the other; or one.
        data: samples for all of them, with labels.
        settings: how candidates are scored.
        similarity: how redundancy is measured.
        options: device and threads.

    Raises:
        InputError: a model does not run on the data, or none has an accuracy.
    """
    from redtest_onnx.ranking.models import measure_candidate
    from redtest_onnx.ranking.rank import RankingSettings, rank_candidates

    check("settings", settings, RankingSettings | None)
    check("similarity", similarity, AnalysisSettings | None)
    settings, similarity = settings or RankingSettings(), similarity or AnalysisSettings()
    if not isinstance(models, Mapping):
        one = isinstance(models, str | bytes) or not isinstance(models, Iterable)
        models = _named([models] if one else models)  # type: ignore[list-item,arg-type]
    candidates = []
    for name, model in models.items():
        with opened_workbench(model, data, options, similarity.seed) as bench:
            timed = settings.cost == "latency"
            candidates.append(measure_candidate(name, bench, similarity, timed=timed))
    return rank_candidates(candidates, settings)


def _named(models: Iterable[ModelLike]) -> dict[str, ModelLike]:
    """Models by their labels, numbered where they are called alike."""
    found: dict[str, ModelLike] = {}
    for k, model in enumerate(models):
        opened = open_model(model)
        name = opened.label if opened.label not in found else f"{opened.label} ({k + 1})"
        found[name] = model if isinstance(model, Workbench) else opened
    return found

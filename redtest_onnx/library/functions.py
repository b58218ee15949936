"""The public functions: each does the work of one command.

They take models as paths, bytes, protos or loaded, data as paths, arrays or data sets, and a `Workbench` in
the place of both. Without data they make synthetic inputs, on which similarities say little about real ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from redtest_onnx.data.open import DataLike
from redtest_onnx.errors import InputError
from redtest_onnx.layers.granularity import Granularity
from redtest_onnx.layers.layer import Layer
from redtest_onnx.library.opening import ModelLike, Opening, open_model, open_workbench
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis, AnalysisSettings, Progress
from redtest_onnx.similarity.analyze import analyze as measure_layers

if TYPE_CHECKING:
    from redtest_onnx.auditing.profile import Profile
    from redtest_onnx.auditing.run import Audit
    from redtest_onnx.pruning.budget import Budget
    from redtest_onnx.pruning.plan import Plan
    from redtest_onnx.pruning.prune import PruneSettings, Pruning
    from redtest_onnx.ranking.rank import Ranking, RankingSettings
    from redtest_onnx.runtime.session import RunOptions
    from redtest_onnx.similarity.compare import Comparison
    from redtest_onnx.similarity.files import FileComparison
    from redtest_onnx.training.finetune import FineTuning
    from redtest_onnx.training.settings import TrainingSettings
    from redtest_onnx.weight_sparsity.measure import Sparsity


class Limits(Opening, total=False):
    """What limits a pruning, and how its model and data are opened.

    Attributes:
        budget: all limits at once; in the place of the following.
        remove: number of layers.
        threshold: similarity from which on layers go.
        targets: shares that may stay, such as {"params": 0.5}.
        max_drop: largest loss of accuracy or agreement.
        protect: globs of layers that stay.
    """

    budget: Budget
    remove: int
    threshold: float
    targets: Mapping[str, float] | Sequence[tuple[str, float]]
    max_drop: float
    protect: Iterable[str]


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
    settings = settings or AnalysisSettings()
    return measure_layers(_opened(model, data, options, settings.seed), settings, progress)


def find_layers(
    model: ModelLike,
    data: DataLike = None,
    *,
    layers: str = "auto",
    granularity: Granularity = "sub-layer",
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
    from redtest_onnx.checks import check
    from redtest_onnx.similarity.analyze import select_layers

    check("granularity", granularity, Granularity)
    return select_layers(_opened(model, data, options), layers, granularity)


def plan(
    model: ModelLike,
    data: DataLike = None,
    settings: PruneSettings | None = None,
    *,
    analysis: Analysis | None = None,
    progress: Progress | None = None,
    **limits: Unpack[Limits],
) -> Plan:
    """Choose the layers to take out.

    Args:
        model: the model.
        data: calibration samples.
        settings: in which order layers go, and how the result will be repaired.
        analysis: an earlier analysis of the same model, to be used instead of a new one.
        progress: called as work is done.
        limits: see `Limits`; without any, as many layers as cost no more than one point of accuracy or
            agreement.

    Raises:
        InputError: the model doesn't run on the data, or a limit can't be kept.
        NegativeVerdictError: a target can't be reached.
    """
    from redtest_onnx.pruning.prune import plan as choose

    budget, how = _budget(limits)
    bench = open_workbench(model, data, **_seeded(how, settings))
    return choose(bench, budget, settings, analysis=analysis, progress=progress)[0]


def prune(
    model: ModelLike,
    data: DataLike = None,
    settings: PruneSettings | None = None,
    *,
    plan: Plan | None = None,
    analysis: Analysis | None = None,
    progress: Progress | None = None,
    **limits: Unpack[Limits],
) -> Pruning:
    """Take redundant layers out of a model, repair what is left, verify it and compare both.

    Args:
        model: the model.
        data: calibration samples.
        settings: in which order layers go, and how the result is repaired.
        plan: what to take out, if that is known; in the place of limits.
        analysis: an earlier analysis of the same model, to be used instead of a new one.
        progress: called as work is done.
        limits: as in `plan`.

    Raises:
        InputError: the model doesn't run on the data, or a limit can't be kept.
        NegativeVerdictError: a target can't be reached.
    """
    from redtest_onnx.pruning import prune as pruning

    budget, how = _budget(limits, plan)
    bench = open_workbench(model, data, **_seeded(how, settings))
    chosen = settings or pruning.PruneSettings()
    if plan is None:
        plan, analysis = pruning.plan(bench, budget, chosen, analysis=analysis, progress=progress)
    analysis = analysis or measure_layers(bench, chosen.similarity, progress)
    return pruning.prune(bench, plan, analysis, chosen, targets=budget.targets, progress=progress)


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

    settings = settings or AnalysisSettings()
    sides = [_opened(model, data, options, settings.seed) for model in (first, second)]
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

    if second is None and other_data is None:
        raise InputError("there is nothing to compare it with", hint="give a second model, or @other_data")
    settings = settings or AnalysisSettings()
    one = _opened(first, data, options, settings.seed)
    other = data if other_data is None else other_data
    two = _opened(first if second is None else second, other, options, settings.seed)
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
    from redtest_onnx.auditing.profile import Profile, load_profile
    from redtest_onnx.auditing.run import audit as check_model

    target = profile if isinstance(profile, Profile) else load_profile(profile)
    return check_model(_opened(model, data, options), target, timed=timed, progress=progress)


def finetune(
    model: ModelLike,
    data: DataLike,
    settings: TrainingSettings | None = None,
    *,
    teacher: ModelLike | None = None,
    validation: DataLike = None,
    progress: Progress | None = None,
    **how: Unpack[Opening],
) -> FineTuning:
    """Train a model in PyTorch; its graph stays as it is, only weights change.

    Args:
        model: the model, pruned or not.
        data: training samples.
        settings: see `TrainingSettings`.
        teacher: the model to imitate, usually the original.
        validation: samples that choose the best epoch; a part of `data` held out if None.
        progress: called as work is done.
        how: see `Opening`; `evaluation` are samples for a last judgement.

    Raises:
        RuntimeUnavailableError: PyTorch is not installed.
        InputError: operators that can't be trained, data that doesn't fit, or nothing to learn from.
        NegativeVerdictError: training diverged.
    """
    from redtest_onnx.data.open import open_data
    from redtest_onnx.training.finetune import ValidationData
    from redtest_onnx.training.finetune import finetune as train
    from redtest_onnx.training.loop import Watch

    if settings is not None and not isinstance(model, Workbench):
        how.setdefault("seed", settings.seed)
    bench = open_workbench(model, data, **how)
    others = None if validation is None else open_data(validation, bench.model, images=how.get("images"))
    return train(
        bench,
        settings,
        teacher=None if teacher is None else open_model(teacher),
        others=ValidationData(others, bench.evaluation),
        watch=Watch(progress=progress),
    )


def sparsity(
    model: ModelLike, pairs: Sequence[tuple[float, float]] | None = None, *, eta: float = 0.0
) -> Sparsity:
    """Measure the PQ Index of all weights: how sparse they are in effect, and how many are needed.

    Args:
        model: the model.
        pairs: exponents (p, q), 0 < p < q; those of the paper if None.
        eta: share of the q-norm that the bound may lose.

    Raises:
        InputError: the model has no weights, or exponents or eta are out of range.
    """
    from redtest_onnx.weight_sparsity.measure import PAIRS, measure_sparsity

    return measure_sparsity(open_model(model), pairs or PAIRS, eta=eta)


def rank(
    models: Mapping[str, ModelLike] | Sequence[ModelLike],
    data: DataLike = None,
    settings: RankingSettings | None = None,
    *,
    similarity: AnalysisSettings | None = None,
    options: RunOptions | None = None,
) -> Ranking:
    """Put trained models in order by accuracy, cost and redundancy.

    Args:
        models: the models, by name or one after the other.
        data: samples for all of them, with labels.
        settings: how candidates are scored.
        similarity: how redundancy is measured.
        options: device and threads.

    Raises:
        InputError: a model does not run on the data, or none has an accuracy.
    """
    from redtest_onnx.ranking.models import measure_candidate
    from redtest_onnx.ranking.rank import RankingSettings, rank_candidates

    settings, similarity = settings or RankingSettings(), similarity or AnalysisSettings()
    named = models if isinstance(models, Mapping) else _named(models)
    candidates = []
    for name, model in named.items():
        with _opened(model, data, options, similarity.seed) as bench:
            timed = settings.cost == "latency"
            candidates.append(measure_candidate(name, bench, similarity, timed=timed))
    return rank_candidates(candidates, settings)


def verify(
    original: ModelLike, rewritten: ModelLike, data: DataLike = None, options: RunOptions | None = None
) -> None:
    """Check a rewritten model against what it came from.

    Same inputs, outputs, operator sets and metadata; valid where the original is; loads in ONNX Runtime at
    every optimisation level and gives finite values where the original does.

    Args:
        original: the model before.
        rewritten: what became of it.
        data: samples for both.
        options: device and threads.

    Raises:
        InternalError: the contract is broken.
        InputError: values overflow that were finite.
    """
    from redtest_onnx.pruning.verify import verify as check_rewritten

    bench = _opened(original, data, options)
    check_rewritten(bench, bench.successor(open_model(rewritten)))


def load_plan(
    path: str | Path, model: ModelLike, data: DataLike = None, options: RunOptions | None = None
) -> Plan:
    """Read a plan that `Plan.save` wrote, perhaps edited since, and hold it against the model.

    Args:
        path: the file.
        model: the model it is for.
        data: samples for the model, as for `plan`.
        options: device and threads.

    Raises:
        InputError: not a plan, made for another model, or with layers that are not there or can't go.
    """
    from redtest_onnx.pruning.plan import load_plan as read_plan

    bench = _opened(model, data, options)
    return read_plan(Path(path), bench.model, bench.layers())


def _opened(
    model: ModelLike, data: DataLike, options: RunOptions | None, seed: int | None = None
) -> Workbench:
    how: Opening = {}
    if options is not None:
        how["options"] = options
    if seed is not None and not isinstance(model, Workbench):
        how["seed"] = seed
    return open_workbench(model, data, **how)


def _seeded(how: Opening, settings: PruneSettings | None) -> Opening:
    """One seed for all: that of the settings, where none is given."""
    if settings is not None and settings.similarity.seed:
        how.setdefault("seed", settings.similarity.seed)
    return how


def _budget(limits: Limits, plan: Plan | None = None) -> tuple[Budget, Opening]:
    """The limits as a budget, and the rest of the keywords."""
    from redtest_onnx.pruning.budget import Budget

    names = Opening.__annotations__
    how = Opening(**{k: v for k, v in limits.items() if k in names})  # type: ignore[typeddict-item]
    said = {k: v for k, v in limits.items() if k not in names}
    if plan is not None and said:
        raise InputError(f"@{next(iter(said))} and @plan exclude each other", hint="give one of them")
    whole = limits.get("budget")
    if whole is not None:
        if len(said) > 1:
            raise InputError(
                f"@budget and @{next(k for k in said if k != 'budget')} exclude each other",
                hint="say everything in the budget",
            )
        return whole, how
    return Budget.of(**said), how


def _named(models: Sequence[ModelLike]) -> dict[str, ModelLike]:
    """Models by their labels, numbered where they are called alike."""
    found: dict[str, ModelLike] = {}
    for k, model in enumerate(models):
        opened = open_model(model)
        name = opened.label if opened.label not in found else f"{opened.label} ({k + 1})"
        found[name] = model if isinstance(model, Workbench) else opened
    return found

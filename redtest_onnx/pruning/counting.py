"""What a number of layers counts: the blocks of a transformer, else the layers of the default series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from redtest_onnx.errors import InputError
from redtest_onnx.layers.blocks import is_transformer
from redtest_onnx.layers.granularity import Granularity
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.budget import Budget, protected_by
from redtest_onnx.pruning.judging import analyze_and_answer
from redtest_onnx.pruning.repair.fit import Method
from redtest_onnx.pruning.settings import PruneSettings
from redtest_onnx.pruning.units import kept_by, too_many, unfitted
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis, Progress
from redtest_onnx.similarity.rescore import restricted
from redtest_onnx.similarity.selection import select_layers
from redtest_onnx.similarity.settings import AnalysisSettings


def resolved_granularity(bench: Workbench, settings: AnalysisSettings, *, counts: bool) -> Granularity:
    """What "auto" stands for; others stand for themselves.

    Numbers of layers count the blocks of a transformer, as its configuration does. Other limits take the
    finest choice, single sub-layers, unless blocks alone can go.

    Args:
        bench: the model.
        settings: which layers are asked for.
        counts: whether a number of layers limits the pruning.
    """
    if settings.granularity != "auto":
        return settings.granularity
    if settings.layers != "auto":
        return "sub-layer"
    series = bench.layers()
    if not any(layer.kind == "attention" for layer in series):
        return "sub-layer"
    if not any(layer.removable for layer in series):
        return "block" if any(layer.removable for layer in bench.layers("block")) else "sub-layer"
    return "block" if counts and is_transformer(series, bench.layers("block")) else "sub-layer"


def counted_analysis(
    bench: Workbench,
    settings: AnalysisSettings,
    *,
    counts: bool,
    given: Analysis | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """The analysis to plan on, of the layers that the limit counts.

    Args:
        bench: the model and calibration samples.
        settings: how similarity is measured.
        counts: whether a number of layers limits the pruning.
        given: an earlier analysis of the same model. One of single sub-layers tells all of their blocks; what
            it was explicitly made of stays where the settings leave that open.
        progress: called as work is done.

    Raises:
        InputError: see `analyze`; or the earlier analysis lacks the layers that are asked for.
    """
    if given is not None and settings.granularity == "auto":
        settings = given.settings
    wanted = resolved_granularity(bench, settings, counts=counts)
    if given is None:
        kept = settings.granularity if wanted == "sub-layer" else wanted  # "auto" may count otherwise later
        return analyze_and_answer(bench, replace(settings, granularity=kept), progress)
    if wanted == resolved_granularity(bench, given.settings, counts=False):
        return given
    found = restricted(given, bench.layers(wanted), wanted)
    if found is None:
        raise InputError(
            f"the analysis has no values of the layers of @granularity={wanted}",
            where=bench.label,
            hint="leave out @analysis, or @granularity",
        )
    return found


def planning_analysis(
    bench: Workbench,
    budget: Budget,
    settings: PruneSettings,
    *,
    given: Analysis | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """The analysis that a budget is planned on, of the layers that it counts.

    Args:
        bench: the model and calibration samples.
        budget: what limits the pruning.
        settings: how similarity is measured, and how the result will be repaired.
        given: an earlier analysis, see `counted_analysis`.
        progress: called as work is done.

    Raises:
        InputError: see `counted_analysis`; or a protected layer does not exist.
        NegativeVerdictError: more layers are asked for than can go; nothing was measured for that.
    """
    counts = budget.remove is not None
    if counts and given is None:
        allowed = adapters_where_fitted(bench, settings.repair)
        granularity = resolved_granularity(bench, settings.similarity, counts=True)
        _require_count(bench, select_layers(bench, settings.similarity.layers, granularity), budget, allowed)
    return counted_analysis(bench, settings.similarity, counts=counts, given=given, progress=progress)


def adapters_where_fitted(bench: Workbench, repair: Method) -> Callable[[Layer], bool]:
    """Whether a layer may go: without data nothing could be fitted, and an adapter would be a guess."""
    adapters = not bench.data.synthetic or repair in ("adapter", "reinit")
    return lambda layer: adapters or layer.action != "adapter"


def _require_count(
    bench: Workbench, layers: Sequence[Layer], budget: Budget, allowed: Callable[[Layer], bool]
) -> None:
    protected = protected_by(layers, budget.protect)
    possible = sum(layer.removable and allowed(layer) and protected(layer) for layer in layers)
    if budget.remove is not None and budget.remove > possible:
        why = f"{unfitted(layers, allowed)}{kept_by(layers, protected)}"
        raise too_many(bench, budget.remove, possible, layers, why)

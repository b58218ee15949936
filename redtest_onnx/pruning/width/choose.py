"""Layers and channels in one budget: several divisions of it, each repaired shortly, and the best of them."""

from __future__ import annotations

import logging
from dataclasses import replace

from redtest_onnx.errors import InputError, NegativeVerdictError
from redtest_onnx.graph.inner_width import InnerWidth
from redtest_onnx.graph.inner_widths import inner_widths
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.best_of import planner, repaired_error
from redtest_onnx.pruning.budget import Budget, protected_by
from redtest_onnx.pruning.criteria.base import CriterionContext
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.width.fill import WidthFill
from redtest_onnx.pruning.width.prices import WidthPrices, width_prices
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Progress

log = logging.getLogger(__name__)

PARTS = (1.0, 0.5, 0.0)
"""Parts of what must go that layers bring; those beside the best of them are tried next."""
_NEIGHBOUR = 0.25

Division = tuple[Plan, float]


def plan_with_widths(
    context: CriterionContext, budget: Budget, criterion: str, progress: Progress | None = None
) -> Plan:
    """Choose layers and channels of inner widths for the targets of a budget.

    Layers bring a part of what must go, channels the rest; which part is decided by the squared relative
    error of the outputs behind a short refit, on samples that nothing was fitted to.

    Args:
        context: the model, its layers and their similarity.
        budget: what limits the choice; its targets are of parameters or multiply-accumulates.
        criterion: name of what chooses the layers.
        progress: called as work is done.

    Raises:
        InputError: there are no samples, or no inner widths and layers alone don't do.
        NegativeVerdictError: the targets can't be reached.
    """
    widths = _free_widths(context, budget)
    search = _Search(context, budget, criterion, width_prices(context.bench, widths, progress), progress)
    found = {part: search.division(part) for part in PARTS}
    tried = {part: item for part, item in found.items() if item is not None}
    if not tried:
        raise _unreachable(context, budget) if widths else _no_channels(context)
    if not widths:
        log.warning("%s: layers alone bring the target", _no_channels(context).what)
    best = min(tried, key=lambda part: (tried[part][1], -part))
    for part in (best + _NEIGHBOUR, best - _NEIGHBOUR):
        beside = search.division(part) if 0 <= part <= 1 else None
        if beside is not None:
            tried[part] = beside
    return tried[min(tried, key=lambda part: (tried[part][1], -part))][0]


def require_width(bench: Workbench, repair: str, sharded: bool) -> None:
    """Check that channels can go from a model, and that the repair asked for can compensate for them.

    Args:
        bench: the model.
        repair: method of the repair.
        sharded: whether it is fitted to samples in files of their own.

    Raises:
        InputError: they can't.
    """
    if repair == "reinit" or sharded:
        raise InputError(
            "@width refits what reads the channels that stay, which @repair=reinit and @fit_data don't",
            where=bench.label,
            hint="@repair=auto",
        )
    if bench.view.choices:
        raise InputError(
            "@width takes no models with branches: channels would have to go on both sides",
            where=bench.label,
            hint="leave out @width",
        )


class _Search:
    """Makes divisions of a budget and judges them."""

    def __init__(
        self,
        context: CriterionContext,
        budget: Budget,
        criterion: str,
        prices: list[WidthPrices],
        progress: Progress | None,
    ) -> None:
        self._context, self._budget, self._criterion = context, budget, criterion
        self._progress = progress
        self._bench = context.bench
        self._prices = prices
        self._known: dict[str, float] = {}

    def division(self, part: float) -> Division | None:
        """The plan in which layers bring a part of what must go, and its error; None where there is none."""
        bench = self._bench
        layers = Plan(self._criterion, bench.digest, ())
        if part > 0:
            shares = tuple((what, 1 - part * (1 - share)) for what, share in self._budget.targets)
            only = replace(self._budget, targets=shares, width=False)
            try:
                layers = planner(self._criterion)(self._context, only, progress=self._progress)
            except NegativeVerdictError as error:
                log.info("layers can't bring %.0f %% of what must go: %s", 100 * part, error.what)
                return None
        left = apply_plan(bench, layers)
        prices = [item for item in self._prices if _is_there(item, left)]
        widths = WidthFill(bench, prices, self._budget.targets).run(layers)
        if widths is None:
            log.info("channels can't bring %.0f %% of what must go", 100 - 100 * part)
            return None
        plan = replace(layers, widths=widths, reason=None)
        if plan.empty:
            return replace(plan, reason="the model meets the targets as it is"), 0.0
        key = repr((sorted(step.region for step in plan.steps), plan.widths))
        if key not in self._known:
            self._known[key] = repaired_error(bench, plan)
            if self._progress:
                self._progress(len(self._known), len(PARTS) + 2, "comparing layers with channels")
        log.info(
            "%.0f %% by %d layers, the rest by %d channels: relative squared error %.4g behind a short refit",
            *(100 * part, len(plan.steps), sum(width.removed for width in widths), self._known[key]),
        )
        return plan, self._known[key]


def _free_widths(context: CriterionContext, budget: Budget) -> list[InnerWidth]:
    """The inner widths that may lose channels: none of which a part lies in a protected layer.

    Raises:
        InputError: nothing tells which channels matter.
    """
    bench = context.bench
    if bench.data.synthetic:
        raise InputError(
            "@width needs samples: synthetic inputs don't tell which channels matter",
            where=bench.label,
            hint="give some (@data)",
        )
    found = inner_widths(bench.model)
    for name, reason in found.refused.items():
        log.info("the channels of %s stay: %s", name, reason)
    free = protected_by(context.analysis.layers, budget.protect)
    kept: set[int] = set()
    for layer in context.analysis.layers:
        if not free(layer):
            kept |= bench.index.between(layer.input, layer.exit)
    return [
        width
        for width in found.found
        if kept.isdisjoint(operator.node for operator in (*width.producers, *width.consumers))
        and all(_flattens(bench, node) for node in width.reshapes)
    ]


def _no_channels(context: CriterionContext) -> InputError:
    found = inner_widths(context.bench.model)
    reasons = [f"{name}: {reason}" for name, reason in found.refused.items()]
    why = "; @protect keeps what could be removed" if found.found else f" ({reasons[0]})" if reasons else ""
    return InputError(
        f"no channels can be taken from the inside of a layer{why}",
        where=context.bench.label,
        hint="leave out @width",
    )


def _flattens(bench: Workbench, node: int) -> bool:
    """Whether a Reshape leaves the samples apart, which only sizes tell."""
    sizes, names = bench.shapes.sizes, bench.index.nodes[node]
    before, after = sizes.get(names.input[0]), sizes.get(names.output[0])
    return before is not None and after is not None and before[0] == after[0]


def _is_there(prices: WidthPrices, left: Model) -> bool:
    """Whether an inner width is the same in a model without some layers."""
    own = prices.width
    other = next((width for width in inner_widths(left).found if width.name == own.name), None)
    return other is not None and _signature(own) == _signature(other)


def _signature(width: InnerWidth) -> tuple[object, ...]:
    ends = [[operator.output for operator in side] for side in (width.producers, width.consumers)]
    return width.channels, ends, set(width.tensors)


def _unreachable(context: CriterionContext, budget: Budget) -> NegativeVerdictError:
    asked = ", ".join(f"{what}={share:g}" for what, share in budget.targets)
    return NegativeVerdictError(
        f"target {asked} can't be reached, neither with layers nor with channels",
        where=context.bench.label,
        hint="a higher target, or fewer protected layers",
    )

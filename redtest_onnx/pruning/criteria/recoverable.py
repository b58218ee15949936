"""The criterion that knows the repair: take out what the operators in front can make up for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.apply import AdapterInsertion, apply_plan
from redtest_onnx.pruning.criteria.base import CriterionContext, ScoredLayer, criterion
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.repair.equations import RANKING_ROWS
from redtest_onnx.pruning.repair.known import GOAL_BYTES, KnownValues
from redtest_onnx.pruning.repair.refit import Effort, refit

_SAMPLES = 128  # to fit to, and as many to judge by

Window = tuple[Layer, ...]


@criterion("recoverable")
def recoverable(context: CriterionContext) -> Iterator[ScoredLayer]:
    """Take out what a least-squares fit of the operator in front of the gap replaces best.

    Every gap, of one layer or of several in a row, is priced once: by the squared relative distance of the
    outputs after the fit, everything behind as it was. Prices of separate gaps are taken to add up, so that
    the next layer is the one that raises their sum least, for what it is worth. Score: minus that rise.
    """
    prices = _Prices(context)
    left = context.candidates
    gaps: list[Window] = []
    while left:
        rises = {layer: prices.rise(gaps, layer) for layer in left}
        best = min(left, key=lambda layer: rises[layer] / max(context.worth(layer), 1e-9))
        gaps = [*(gap for gap in gaps if not _touches(gap, best)), _merged(gaps, best)]
        left.remove(best)
        yield ScoredLayer(best, -rises[best])


class _Prices:
    """What gaps cost, each measured once."""

    def __init__(self, context: CriterionContext) -> None:
        self._context = context
        indices = context.indices
        half = min(_SAMPLES, max(len(indices) // 2, 1))
        self._fit, judged = indices[:half], indices[half : half + _SAMPLES]
        self._judge = context.bench.evaluator(judged if len(judged) else self._fit)
        self._known: dict[Window, float] = {(): 0.0}
        self._effort = Effort(0, RANKING_ROWS, KnownValues(GOAL_BYTES), diagnose=False)

    def rise(self, gaps: Iterable[Window], layer: Layer) -> float:
        """What taking out one more layer adds to the price of all gaps."""
        before = sum(self._price(gap) for gap in gaps if _touches(gap, layer))
        return self._price(_merged(gaps, layer)) - before

    def _price(self, gap: Window) -> float:
        if gap not in self._known:
            self._known[gap] = self._measured(gap)
        return self._known[gap]

    def _measured(self, gap: Window) -> float:
        bench = self._context.bench
        plan = Plan("recoverable", bench.digest, tuple(map(Step.of, gap)))
        pruned = AdapterInsertion(apply_plan(bench, plan))
        fitted, _ = refit(bench, pruned, plan, self._fit, scope="gaps", effort=self._effort)
        effect = self._judge.evaluate(fitted).agreement.relative_l2
        return effect**2 if np.isfinite(effect) else float("inf")


def _touches(gap: Window, layer: Layer) -> bool:
    """Whether a gap and a layer lie directly behind one another."""
    return layer.input == gap[-1].exit or layer.exit == gap[0].input


def _merged(gaps: Iterable[Window], layer: Layer) -> Window:
    """The gap that a layer makes together with those it touches."""
    found = [*(item for gap in gaps if _touches(gap, layer) for item in gap), layer]
    return tuple(sorted(found, key=lambda item: item.index))

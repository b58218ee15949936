"""Reach sizes: which layers must go until no more than a share of parameters, latency, ... is left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, get_args

import numpy as np

from redtest_onnx.errors import InputError, NegativeVerdictError
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.criteria.base import CriterionContext, ScoredLayer
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.runtime.latency import measure_latency, measure_regions
from redtest_onnx.runtime.workbench import Workbench

Quantity = Literal["params", "macs", "size", "memory", "latency"]
_WORDS: dict[str, str] = {
    "params": "number of parameters",
    "macs": "number of MACs",
    "size": "size",
    "memory": "memory of activations",
    "latency": "latency",
}
Targets = tuple[tuple[Quantity, float], ...]
"""Quantities with the share of them that may stay."""
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)

TRIES = 6  # plans that are timed
BELOW, ABOVE = 0.04, 0.01  # how far from a latency target a timed plan may lie


def unknown_quantity(quantity: str, where: str) -> InputError:
    """The error of a model whose own quantity can't be told, so that no share of it can be asked for."""
    return InputError(
        f"the model's {_WORDS[quantity]} can't be told, since sizes or operators are unknown", where=where
    )


def plan_of(bench: Workbench, criterion: str, chosen: Iterable[ScoredLayer]) -> Plan:
    """The plan that takes out some layers."""
    ordered = sorted(chosen, key=lambda item: item.layer.index)
    return Plan(criterion, bench.digest, tuple(Step.of(item.layer, item.score) for item in ordered))


class Quantities:
    """What a plan leaves of the quantities that targets name.

    Args:
        bench: the original, with its branches inlined.
    """

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        cost = bench.cost
        self._totals = {
            "params": cost.parameters,
            "macs": cost.macs,
            "memory": cost.peak_activation_bytes,
            "size": bench.model.file_bytes,
        }

    def left(self, quantity: str, chosen: Sequence[ScoredLayer]) -> float:
        """The share of a quantity that is left without the chosen layers.

        Raises:
            InputError: the model's own quantity is unknown.
        """
        if quantity == "latency":
            before, after = measure_latency([self._bench, self._pruned(chosen)])
            # As much as it may be: a target that is met by chance is met no more the next time.
            return after.p50 / before.p50 * (1 + after.error)
        total = self._totals[quantity]
        if not total:
            raise unknown_quantity(quantity, self._bench.label)
        if quantity in ("params", "macs"):
            return 1 - sum(self.saved(quantity, item.layer) for item in chosen)
        pruned = self._pruned(chosen)
        if quantity == "size":
            return pruned.model.file_bytes / total
        return (pruned.cost.peak_activation_bytes or total) / total

    def saved(self, quantity: str, layer: Layer) -> float:
        """The share of a quantity that goes with one layer; parameters stand in for the file's size."""
        step = Step.of(layer)
        if quantity in ("params", "size"):
            return step.parameters / max(self._totals["params"] or 0, 1)
        if quantity == "macs":
            return (step.macs or 0) / max(self._totals["macs"] or 0, 1)
        return 0.0

    def latencies(self, layers: Sequence[Layer]) -> list[float]:
        """The share of the model's latency that each layer takes, run by itself."""
        regions = [(layer.input or "", layer.exit) for layer in layers]
        return measure_regions(self._bench, regions)

    def _pruned(self, chosen: Iterable[ScoredLayer]) -> Workbench:
        bench = self._bench
        return bench.successor(apply_plan(bench, plan_of(bench, "target", chosen)))


class TargetSearch:
    """Takes layers from a ranking until targets are met.

    Args:
        context: the model and its candidates.
        criterion: name of what ranks them.
        targets: quantities with the share that may stay.
        quantities: what plans leave of them.
    """

    def __init__(
        self,
        context: CriterionContext,
        criterion: str,
        targets: Sequence[tuple[str, float]],
        quantities: Quantities,
    ) -> None:
        self._context, self._criterion = context, criterion
        self._latency = next((share for quantity, share in targets if quantity == "latency"), None)
        self._targets = [target for target in targets if target[0] != "latency"]
        self._quantities = quantities
        self._chosen: list[ScoredLayer] = []

    def worth(self, layer: Layer) -> float:
        """The part of what is still missing that a layer brings, 1 where nothing can be told."""
        missing = [(quantity, left - share) for quantity, share, left in self._unmet()]
        parts = [
            min(self._quantities.saved(quantity, layer) / max(gap, 1e-9), 1.0)
            for quantity, gap in missing
            if quantity != "memory"
        ]
        return sum(parts) / len(parts) if parts else 1.0

    def run(self, ranking: Iterator[ScoredLayer]) -> list[ScoredLayer]:
        """The layers to take out.

        Raises:
            NegativeVerdictError: a target can't be reached.
        """
        while unmet := self._unmet():
            candidate = next(ranking, None)
            if candidate is None:
                quantity, share, left = unmet[0]
                raise self._unreachable(quantity, share, left, len(self._chosen))
            self._chosen.append(candidate)
        self._drop_redundant()
        return self._chosen if self._latency is None else self._timed(list(ranking))

    def _unmet(self) -> list[tuple[str, float, float]]:
        found = [(q, share, self._quantities.left(q, self._chosen)) for q, share in self._targets]
        return [(quantity, share, left) for quantity, share, left in found if left > share]

    def _drop_redundant(self) -> None:
        """Give back what the last layers made needless, the costliest first."""
        for item in sorted(self._chosen, key=lambda item: item.score):
            rest = [other for other in self._chosen if other is not item]
            if all(self._quantities.left(q, rest) <= share for q, share in self._targets):
                self._chosen = rest

    def _timed(self, others: list[ScoredLayer]) -> list[ScoredLayer]:
        """The cheapest layers whose own latencies add up to what must go, held against the real model."""
        target = self._latency or 1.0
        items = [*self._chosen, *others]
        if not items:
            raise self._unreachable("latency", target, 1.0, 0)
        shares = np.array(self._quantities.latencies([item.layer for item in items]))
        costs = np.array(_costs(items))
        costs[: len(self._chosen)] = 0  # they go anyway
        scale, tried = 1.0, dict[tuple[int, ...], float]()
        for _ in range(TRIES):
            picks = _cheapest(costs, shares * scale, 1 - target, range(len(self._chosen)))
            if picks in tried:
                break
            chosen = [items[k] for k in picks]
            tried[picks] = self._quantities.left("latency", chosen)
            if target - BELOW <= tried[picks] <= target + ABOVE:
                return chosen
            scale *= max(1 - tried[picks], 0.01) / max(float(shares[list(picks)].sum()) * scale, 1e-9)
        best = min(tried, key=lambda picks: (tried[picks] > target + ABOVE, abs(tried[picks] - target)))
        if tried[best] > target + ABOVE:
            raise self._unreachable("latency", target, tried[best], len(best))
        return [items[k] for k in best]

    def _unreachable(self, quantity: str, share: float, left: float, count: int) -> NegativeVerdictError:
        return unreachable(self._context.bench, quantity, share, left, count)


def unreachable(
    bench: Workbench, quantity: str, share: float, left: float, count: int
) -> NegativeVerdictError:
    """Says that a target can't be reached: what is left of the quantity without so many layers."""
    reached = (
        f"without {count} layer{'s' * (count > 1)} {left:.2f} is left" if count else "no removal lowers it"
    )
    return NegativeVerdictError(
        f"target {quantity}={share:g} can't be reached: {reached}",
        where=bench.label,
        hint="a higher target, or fewer protected layers",
    )


def _costs(items: Sequence[ScoredLayer]) -> list[float]:
    """How far scores stay behind the best there can be: 1 for similarities, 0 for effects."""
    highest = max((item.score for item in items), default=0.0)
    perfect = 0.0 if highest <= 0 else max(1.0, highest)
    return [max(perfect - item.score, 0.0) for item in items]


def _cheapest(
    costs: np.ndarray[tuple[int], np.dtype[np.float64]],
    savings: np.ndarray[tuple[int], np.dtype[np.float64]],
    needed: float,
    fixed: range,
) -> tuple[int, ...]:
    """The picks of least total cost that save enough (a covering knapsack, solved exactly); else all."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    low = np.zeros(len(costs))
    low[list(fixed)] = 1
    result = milp(
        costs + 1e-9,
        integrality=np.ones(len(costs), dtype=np.int64),
        bounds=Bounds(low, np.ones(len(costs))),
        constraints=LinearConstraint(savings[None, :], needed, np.inf),
    )
    if result.x is None:
        return tuple(range(len(costs)))
    return tuple(int(k) for k in np.flatnonzero(result.x > 0.5))

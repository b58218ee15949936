"""Choose among priced sets of layers within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.criteria.base import ScoredLayer, SetChoice
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.targets import ABOVE, TRIES, Quantities, Targets, plan_of, unreachable
from redtest_onnx.pruning.units import too_many
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Progress

Chosen = list[ScoredLayer]

_FIRST = ("params", "macs", "size", "memory")  # what is counted comes before what takes an edited graph


class SetSearch:
    """Finds the set of least price within a budget.

    Args:
        bench: the original.
        criterion: name of what priced the sets.
        sets: the sets.
    """

    def __init__(self, bench: Workbench, criterion: str, sets: SetChoice) -> None:
        self.bench, self.criterion = bench, criterion
        self._sets = sets
        self._quantities = Quantities(bench)

    @property
    def largest(self) -> int:
        """Layers of the largest set."""
        return self._sets.largest

    def of_count(self, count: int, layers: Sequence[Layer]) -> Chosen:
        """The cheapest set of so many layers.

        Args:
            count: number of layers to remove.
            layers: all that were considered, for the message.

        Raises:
            NegativeVerdictError: fewer can go.
        """
        found = self._sets.of_count(count)
        if found is None:
            why = f"; {self.criterion} takes none that needs an adapter"
            raise too_many(self.bench, count, self.largest, layers, why)
        return found

    def above(self, threshold: float) -> Chosen:
        """The largest set whose score, minus its price, is so high; none if there is none."""
        for count in range(self.largest, 0, -1):
            found = self._sets.of_count(count)
            if found and found[0].score >= threshold:
                return found
        return []

    def within(self, targets: Targets) -> Chosen:
        """The cheapest set that meets all targets.

        Raises:
            NegativeVerdictError: a target can't be reached.
        """
        counted = sorted((t for t in targets if t[0] != "latency"), key=lambda t: _FIRST.index(t[0]))
        latency = next((share for quantity, share in targets if quantity == "latency"), None)
        left = self._quantities.left

        def meets(chosen: Sequence[ScoredLayer]) -> bool:
            return all(left(quantity, chosen) <= share for quantity, share in counted)

        found = self._sets.least(meets) if latency is None else self._timed(latency, meets)
        if found is None:
            most = self._sets.of_count(self.largest) or []
            unmet = [(q, share, left(q, most)) for q, share in targets]
            quantity, share, rest = max(unmet, key=lambda item: item[2] - item[1])
            raise unreachable(self.bench, quantity, share, rest, len(most))
        return found

    def _timed(self, share: float, meets: Callable[[Sequence[ScoredLayer]], bool]) -> Chosen | None:
        """The cheapest set whose layers take what must go of the latency, held against the real model."""
        layers = [item.layer for item in self._sets.of_count(self.largest) or []]
        own = dict(zip(layers, self._quantities.latencies(layers), strict=True))
        scale = 1.0
        for _ in range(TRIES):
            found = self._sets.least(
                lambda chosen, scale=scale: (  # type: ignore[misc]
                    meets(chosen) and sum(own[item.layer] for item in chosen) * scale >= 1 - share
                )
            )
            if found is None:
                return None
            rest = self._quantities.left("latency", found)
            if rest <= share + ABOVE:
                return found
            planned = sum(own[item.layer] for item in found)
            scale = min(scale * 0.95, max(1 - rest, 0.01) / max(planned, 1e-9))
        return None

    def tolerated(
        self,
        chosen: Chosen,
        loss: Callable[[Plan], float],
        max_drop: float,
        progress: Progress | None,
    ) -> Plan:
        """The plan of the largest set up to the chosen one whose loss is tolerable, by bisection."""
        tries = 0

        def plan(count: int) -> Plan:
            found = chosen if count == len(chosen) else self._sets.of_count(count) or []
            return plan_of(self.bench, self.criterion, found)

        good, bad = 0, len(chosen) + 1
        while bad - good > 1:
            middle = (good + bad) // 2 if tries else len(chosen)
            fits = loss(plan(middle)) <= max_drop
            tries += 1
            good, bad = (middle, bad) if fits else (good, middle)
            if progress:
                progress(tries, tries + (bad - good - 1).bit_length(), "trying removals")
        return plan(good)

"""Take channels, the cheapest for what they save first, until targets are met that layers have left open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from redtest_onnx.pruning.plan import Narrowing, Plan
from redtest_onnx.pruning.targets import Quantity, Targets
from redtest_onnx.pruning.width.prices import WidthPrices
from redtest_onnx.pruning.width.savings import WidthSavings
from redtest_onnx.runtime.workbench import Workbench


class WidthFill:
    """Finds the channels that go beside the layers of a plan.

    Args:
        bench: the model.
        prices: of its inner widths; those that the layers leave as they are.
        targets: quantities with the share of them that may stay: parameters, multiply-accumulates.
    """

    def __init__(self, bench: Workbench, prices: Sequence[WidthPrices], targets: Targets) -> None:
        self._prices = {item.width.name: item for item in prices}
        self._targets = targets
        self._savings = WidthSavings(bench, [item.width for item in prices])
        self._totals: dict[Quantity, int] = {
            "params": bench.cost.parameters,
            "macs": bench.cost.macs or 0,
        }

    def missing(self, plan: Plan, removed: Mapping[str, int]) -> dict[Quantity, float]:
        """How much of each quantity must still go, where a target isn't met."""
        found: dict[Quantity, float] = {}
        for quantity, share in self._targets:
            layers = sum((s.parameters if quantity == "params" else s.macs or 0) for s in plan.steps)
            total = self._totals[quantity]
            left = total - layers - self._savings.saved(quantity, removed)
            if left > share * total:
                found[quantity] = left - share * total
        return found

    def run(self, plan: Plan) -> tuple[Narrowing, ...] | None:
        """The channels that go for least, by inner width; None where all that may go don't suffice.

        Step by step the inner width whose next channels cost least for what they bring of what is missing
        gives some; several eighths at once where that is cheaper. In the end what turned out to be needless
        is given back.
        """
        removed: dict[str, int] = {}
        while missing := self.missing(plan, removed):
            best: tuple[float, str, int] | None = None
            for name, item in self._prices.items():
                now = removed.get(name, 0)
                for count in (amount for amount in item.amounts if amount > now):
                    parts = [
                        min(self._savings.gain(quantity, removed, name, count) / gap, 1.0)
                        for quantity, gap in missing.items()
                    ]
                    worth = sum(parts) / len(parts)
                    if worth <= 0:
                        continue
                    rate = (item.price(count) - item.price(now)) / worth
                    if best is None or (rate, name, count) < best:
                        best = rate, name, count
            if best is None:
                return None
            removed[best[1]] = best[2]
        self._give_back(plan, removed)
        return tuple(self._narrowing(name, removed[name]) for name in self._prices if removed.get(name))

    def _give_back(self, plan: Plan, removed: dict[str, int]) -> None:
        """Let channels stay that need not go, the dearest first."""

        def relief(name: str) -> tuple[float, str]:
            item, now = self._prices[name], removed[name]
            return -(item.price(now) - item.price(self._less(name, now))), name

        for name in sorted(removed, key=relief):
            while removed[name]:
                fewer = {**removed, name: self._less(name, removed[name])}
                if self.missing(plan, fewer):
                    break
                removed[name] = fewer[name]

    def _less(self, name: str, count: int) -> int:
        return max((amount for amount in self._prices[name].amounts if amount < count), default=0)

    def _narrowing(self, name: str, count: int) -> Narrowing:
        item = self._prices[name]
        channels = item.width.channels
        alone = {name: count}
        return Narrowing(
            name,
            channels,
            tuple(int(k) for k in item.elimination.kept(channels - count)),
            item.price(count),
            self._savings.saved("params", alone),
            self._savings.saved("macs", alone) if self._totals["macs"] else None,
        )

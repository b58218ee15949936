"""Sets of layers with prices, one choice per stage, put together for a whole network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.criteria.base import ScoredLayer

_PER_COUNT = 200  # sets of one size that are kept while stages are put together


@dataclass(frozen=True)
class PricedSet:
    """Layers that go together.

    Attributes:
        layers: in the order of the graph.
        price: what that costs; 0 for none.
    """

    layers: tuple[Layer, ...]
    price: float

    @property
    def key(self) -> tuple[float, tuple[int, ...]]:
        """Cheap sets first; of equal ones those of early layers, so that the order is the same every time."""
        return self.price, tuple(layer.index for layer in self.layers)

    @property
    def savings(self) -> tuple[int, int]:
        """Parameters and multiply-accumulates that go with it."""
        return (
            sum(layer.parameters - layer.added_parameters for layer in self.layers),
            sum((layer.macs or 0) - layer.added_macs for layer in self.layers),
        )

    def scored(self) -> list[ScoredLayer]:
        """The layers, each with minus the price of them all."""
        return [ScoredLayer(layer, -self.price) for layer in self.layers]


class LayerSets:
    """The choice of sets of a network: prices of stages are taken to add up.

    Args:
        stages: sets of the layers of each stage, the empty one among them; of several of one size only
            `rivals` looks beyond the cheapest.

    Attributes:
        sets: of all stages together, by price; of those of one size none that another one beats in price,
            parameters and multiply-accumulates.
    """

    def __init__(self, stages: Sequence[Sequence[PricedSet]]) -> None:
        self._stages = stages
        found = [PricedSet((), 0.0)]
        for stage in stages:
            found = _undominated(_joined(found, cheapest_of_each_size(stage)))
        self.sets = tuple(sorted(found, key=lambda item: item.key))

    @property
    def largest(self) -> int:
        """Layers of the largest set."""
        return max(len(item.layers) for item in self.sets)

    def of_count(self, count: int) -> list[ScoredLayer] | None:
        """The cheapest set of so many layers; None where there is none."""
        return next((item.scored() for item in self.sets if len(item.layers) == count), None)

    def least(self, meets: Callable[[Sequence[ScoredLayer]], bool]) -> list[ScoredLayer] | None:
        """The cheapest of `sets` that meets a condition; None where none does."""
        return next((found for item in self.sets if meets(found := item.scored())), None)

    def rivals(self, chosen: Iterable[Layer], most: int) -> list[list[ScoredLayer]]:
        """The cheapest other sets with as many layers of every stage that save as much.

        Prices are found on few samples, so that sets of nearly one price come in any order: whoever can tell
        them apart on more looks at these.

        Args:
            chosen: layers of the set.
            most: sets to give.
        """
        gone, own = set(chosen), PricedSet(tuple(chosen), 0.0)
        found = [PricedSet((), 0.0)]
        for stage in self._stages:
            count = len(gone & {layer for item in stage for layer in item.layers})
            equal = [item for item in stage if len(item.layers) == count]
            found = sorted(_joined(found, equal), key=lambda item: item.key)[: most + _PER_COUNT]
        return [
            item.scored()
            for item in found
            if set(item.layers) != gone
            and all(a >= b for a, b in zip(item.savings, own.savings, strict=True))
        ][:most]

    def __iter__(self) -> Iterator[ScoredLayer]:
        """The layers one by one, for those who want an order: by the smallest set that takes them in."""
        seen: set[Layer] = set()
        for count in range(self.largest + 1):
            for item in self.of_count(count) or []:
                if item.layer not in seen:
                    seen.add(item.layer)
                    yield item


def cheapest_of_each_size(sets: Iterable[PricedSet]) -> list[PricedSet]:
    """One set of each number of layers, small ones first."""
    found: dict[int, PricedSet] = {}
    for item in sorted(sets, key=lambda item: item.key):
        found.setdefault(len(item.layers), item)
    return [found[count] for count in sorted(found)]


def _joined(found: Sequence[PricedSet], stage: Sequence[PricedSet]) -> list[PricedSet]:
    """Each set of the stages so far with each of the next one."""
    return [
        PricedSet((*a.layers, *b.layers), a.price + b.price)
        for a, b in product(found, stage)
        if np.isfinite(b.price)
    ]


def _undominated(sets: Sequence[PricedSet]) -> list[PricedSet]:
    """Those that no cheaper set of as many layers beats in all that it saves; the cheapest of them."""
    by_count: dict[int, list[PricedSet]] = {}
    for item in sorted(sets, key=lambda item: item.key):
        by_count.setdefault(len(item.layers), []).append(item)
    kept: list[PricedSet] = []
    for items in by_count.values():
        front: list[tuple[int, int]] = []
        for item in items:
            savings = item.savings
            if any(a >= savings[0] and b >= savings[1] for a, b in front):
                continue
            front.append(savings)
            kept.append(item)
            if len(front) == _PER_COUNT:
                break
    return kept

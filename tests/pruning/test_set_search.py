"""Choosing among sets of given prices: thresholds, targets, latencies and tolerances."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.criteria.base import ScoredLayer
from redtest_onnx.pruning.criteria.layer_sets import LayerSets, PricedSet
from redtest_onnx.pruning.set_search import SetSearch
from redtest_onnx.pruning.targets import TRIES, Quantities
from redtest_onnx.runtime.workbench import Workbench

COUNT = 4


@cache
def bench() -> Workbench:
    """Four blocks of 4, 8, 12 and 16 parameters per value."""
    net = Net(x=("n", 4))
    x = net("MatMul", "x", net.weight(4, 4))
    for k in range(1, COUNT + 1):
        wide = net("Relu", net("MatMul", x, net.weight(4, k)))
        x = net("Add", x, net("MatMul", wide, net.weight(k, 4)), name=f"block{k}")
    model = net.model(net("MatMul", x, net.weight(4, 2), name="y"))
    return Workbench(model, rt.open_data(None, model, count=8), rt.RunOptions("cpu", 1))


def blocks() -> list[Layer]:
    return [layer for layer in bench().layers() if layer.action == "bypass"]


def search(prices: Sequence[float] = (1.0, 2.0, 4.0, 8.0), kind: type[SetSearch] = SetSearch) -> SetSearch:
    """Sets of the first one, two, ... blocks at these prices."""
    layers = blocks()
    sets = [PricedSet(tuple(layers[: k + 1]), price) for k, price in enumerate(prices)]
    return kind(bench(), "mine", LayerSets([[PricedSet((), 0.0), *sets]]))


def count(chosen: Sequence[ScoredLayer]) -> int:
    assert [item.layer for item in chosen] == blocks()[: len(chosen)]
    return len(chosen)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(-8.0, 4), (-7.9, 3), (-4.0, 3), (-3.9, 2), (-1.0, 1), (-0.5, 0), (0.0, 0), (-99.0, 4)],
)
def test_a_threshold_takes_the_largest_set_that_scores_so_high(threshold: float, expected: int) -> None:
    assert count(search().above(threshold)) == expected


def test_the_cheapest_set_of_a_count_or_why_there_is_none() -> None:
    assert search().largest == COUNT
    assert [count(search().of_count(k, bench().layers())) for k in range(COUNT + 1)] == [0, 1, 2, 3, 4]
    with pytest.raises(rt.NegativeVerdictError) as error:
        search().of_count(5, bench().layers())
    assert "5 layers can't be removed: 4 of 5 can go" in str(error.value)
    assert "mine takes none that needs an adapter" in (error.value.hint or "")
    layers = blocks()
    gap = SetSearch(bench(), "mine", LayerSets([[PricedSet((), 0.0), PricedSet(tuple(layers[:2]), 1.0)]]))
    with pytest.raises(rt.NegativeVerdictError, match="net: 1 layer can't be removed: 2 of 5 can go"):
        gap.of_count(1, bench().layers())


def test_the_cheapest_set_meets_every_target_exactly() -> None:
    total = bench().cost.parameters
    sizes = [layer.parameters for layer in blocks()]
    assert sizes == [8, 16, 24, 32]
    for k in range(1, COUNT + 1):
        share = 1 - sum(sizes[:k]) / total
        assert count(search().within((("params", share + 1e-9),))) == k
    left = Quantities(bench()).left
    macs, size = (left(quantity, search().of_count(2, bench().layers())) for quantity in ("macs", "size"))
    assert count(search().within((("size", size), ("macs", macs)))) == 2
    assert count(search().within((("macs", macs + 0.01), ("size", size - 1e-6)))) == 3


def test_the_target_that_is_missed_most_is_named() -> None:
    left = Quantities(bench()).left("params", search().of_count(4, bench().layers()))
    with pytest.raises(rt.NegativeVerdictError) as error:
        search().within((("macs", 0.4), ("params", 0.2), ("size", 1.0)))
    assert f"target params=0.2 can't be reached: without 4 layers {left:.2f} is left" in error.value.what
    nothing = SetSearch(bench(), "mine", LayerSets([[PricedSet((), 0.0)]]))
    with pytest.raises(rt.NegativeVerdictError, match="no removal lowers it"):
        nothing.within((("params", 0.5),))


def test_what_takes_an_edited_graph_is_asked_last() -> None:
    asked: list[str] = []

    class Watching(Quantities):
        def left(self, quantity: str, chosen: Sequence[ScoredLayer]) -> float:
            asked.append(quantity)
            return 0.0

    found = search()
    found._quantities = Watching(bench())
    found.within((("memory", 0.5), ("size", 0.5), ("macs", 0.5), ("params", 0.5)))
    assert asked == ["params", "macs", "size", "memory"]


def timed(saved: float, prices: Sequence[float] = (1.0, 2.0, 4.0, 8.0)) -> tuple[SetSearch, list[int]]:
    """A search on a device where a block that goes saves another share than what it takes by itself."""
    tries: list[int] = []

    class Device(Quantities):
        def latencies(self, layers: Sequence[Layer]) -> list[float]:
            assert list(layers) == blocks()
            return [0.1] * len(layers)

        def left(self, quantity: str, chosen: Sequence[ScoredLayer]) -> float:
            if quantity != "latency":
                return super().left(quantity, chosen)
            tries.append(len(chosen))
            return 1 - saved * len(chosen)

    found = search(prices)
    found._quantities = Device(bench())
    return found, tries


@pytest.mark.parametrize(
    ("share", "saved", "expected"),
    [
        (0.8, 0.1, [2]),  # as each said by itself
        (0.79, 0.1, [3]),
        (0.81, 0.0999, [2]),
        (0.88, 0.05, [2, 3]),  # half of it
        (0.9, 0.06, [1, 2]),
        (0.9, 0.09, [1]),  # a hundredth above is met
        (0.9, 0.089, [1, 2]),
    ],
)
def test_what_a_set_saved_corrects_what_single_layers_promised(
    share: float, saved: float, expected: list[int]
) -> None:
    found, tries = timed(saved)
    assert count(found.within((("latency", share),))) == expected[-1]
    assert tries == expected


def test_a_latency_and_a_count_hold_together() -> None:
    found, tries = timed(0.1)
    total = bench().cost.parameters
    share = 1 - sum(layer.parameters for layer in blocks()[:3]) / total
    assert count(found.within((("latency", 0.95), ("params", share + 1e-9)))) == 3
    assert tries == [3]


def test_a_latency_that_no_set_comes_to_is_refused_after_few_tries() -> None:
    found, tries = timed(0.001)
    with pytest.raises(rt.NegativeVerdictError, match=r"latency=0\.9 can't be reached: without 4 layers"):
        found.within((("latency", 0.9),))
    assert len(tries) <= TRIES + 1  # the largest set is timed for the message
    assert tries[-1] == COUNT


@pytest.mark.parametrize("limit", [0.5, 1.0, 1.5, 2.0, 3.0, 3.5, 4.0, 9.0])
def test_a_tolerance_takes_the_largest_set_that_loses_no_more(limit: float) -> None:
    steps: list[tuple[int, int, str]] = []
    tried: list[int] = []

    def loss(plan: rt.Plan) -> float:
        tried.append(len(plan.steps))
        return float(len(plan.steps))

    found = search()
    plan = found.tolerated(
        found.of_count(4, bench().layers()),
        loss,
        limit,
        lambda done, total, what: steps.append((done, total, what)),
    )
    assert len(plan.steps) == min(int(limit), COUNT)
    assert plan.criterion == "mine"
    assert tried[0] == COUNT  # it may fit as a whole
    assert len(tried) == (1 if limit >= COUNT else len(set(tried))) <= 4
    assert [done for done, _, _ in steps] == list(range(1, len(tried) + 1))
    assert steps[-1][0] == steps[-1][1]
    assert all(done <= total and what == "trying removals" for done, total, what in steps)


def test_the_set_that_was_chosen_is_the_one_that_is_tried() -> None:
    layers, found = blocks(), search()
    other = [ScoredLayer(layer, -3.0) for layer in layers[1:]]
    plan = found.tolerated(other, lambda plan: 0.0, 0.1, None)
    assert [step.region for step in plan.steps] == [layer.name for layer in layers[1:]]

"""What is told where no removal was tolerable, and how tries are counted."""

from __future__ import annotations

from functools import cache

import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.pruning.criteria.base import ScoredLayer
from redtest_onnx.pruning.halving import LeastLoss, Removals, Trial, longest
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.runtime.workbench import Workbench

TAKES = "`remove=1` takes one whatever it costs"


def plan(*names: str) -> Plan:
    return Plan("test", "", tuple(Step(name, "x", "y", "bypass", None, 0, 0) for name in names))


def words(limit: float, *losses: float, synthetic: bool = False) -> str:
    least = LeastLoss()
    values = iter(losses)
    watched = least.watched(lambda plan: next(values))
    for k, loss in enumerate(losses):
        assert watched(plan(f"l{k}", "m")) == loss
    return least.words(limit, synthetic)


def test_without_a_finite_loss_nothing_is_advised() -> None:
    one = "@remove=1 takes one whatever it costs"
    assert words(0.01) == f"every removal that was tried costs more than 1 point, the limit; {one}"
    assert words(0.05, float("inf")).startswith("every removal that was tried costs more than 5 points")
    assert words(0.01, synthetic=True).endswith(", and real samples (@data) allow repairs, which cost less")


def test_the_cheapest_try_is_named_with_a_limit_that_allows_it() -> None:
    assert words(0.02, 0.3, 0.123, 0.15) == (
        "without l1, m, which costs least of what was tried, 12.3 points are lost and 2 points may be; "
        "@max_drop=0.13 allows it, @remove=1 takes one whatever it costs"
    )
    assert words(0.01, 0.05, 0.05).startswith("without l0, m,")  # of equal ones the first
    assert "1 point may be" in words(0.01, 0.05)
    assert "0.125 points may be" in words(0.00125, 0.05)
    assert "@max_drop=0.05 allows it" in words(0.01, 0.05)
    assert "real samples (@data)" in words(0.01, 0.05, synthetic=True)


@pytest.mark.parametrize(("loss", "advised"), [(0.19, True), (0.2, False), (0.21, False)])
def test_a_loss_of_a_fifth_is_nothing_to_advise(loss: float, advised: bool) -> None:
    assert ("@max_drop" in words(0.01, loss)) is advised


@cache
def bench() -> Workbench:
    net = Net(x=("n", 4))
    x = net("MatMul", "x", net.weight(4, 4))
    for _ in range(20):
        x = net("Add", x, net("MatMul", net("Relu", x), net.weight(4, 4)))
    model = net.model(net("MatMul", x, net.weight(4, 2), name="y"))
    return Workbench(model, rt.open_data(None, model, count=8), rt.RunOptions("cpu", 1))


def trial(count: int, steps: list[tuple[int, int, str]] | None = None, limit: float = 1.0) -> Trial:
    layers = [layer for layer in bench().layers() if layer.removable][:count]
    candidates = [ScoredLayer(layer, 0.0) for layer in layers]
    progress = None if steps is None else lambda *step: steps.append(step)
    return Trial(bench(), "mine", candidates, limit, progress)


def test_a_plan_of_a_trial_is_in_the_order_of_the_graph() -> None:
    found = trial(5).plan(reversed(trial(5).candidates))
    assert [step.region for step in found.steps] == [item.layer.name for item in trial(5).candidates]
    assert (found.criterion, found.model_sha256) == ("mine", bench().digest)


def sizes(count: int, costly: set[int], steps: list[tuple[int, int, str]] | None = None) -> list[int]:
    """How many layers are tried each time, where some cost too much."""
    searched, tried = trial(count, steps), list[int]()
    names = [item.layer.name for item in searched.candidates]

    def loss(plan: Plan) -> float:
        tried.append(len(plan.steps))
        return 2.0 * any(names.index(step.region) in costly for step in plan.steps)

    kept = Removals(searched, loss).all()
    assert [names.index(item.layer.name) for item in kept] == [k for k in range(count) if k not in costly]
    return tried


def test_groups_double_while_they_fit_and_are_halved_when_not() -> None:
    assert sizes(15, set()) == [1, 3, 7, 15]
    assert sizes(7, {4}) == [1, 3, 7, 5, 4, 6, 5, 5, 6]


def test_the_limit_itself_is_tolerated() -> None:
    assert len(Removals(trial(3), lambda plan: 1.0).all()) == 3
    assert Removals(trial(3), lambda plan: 1.0 + 1e-9).all() == []
    assert longest(trial(3), lambda plan: 1.0) == 3
    assert longest(trial(0), lambda plan: 0.0) == 0
    assert Removals(trial(0), lambda plan: 0.0).all() == []


def test_tries_are_told() -> None:
    steps: list[tuple[int, int, str]] = []
    Removals(trial(7, steps), lambda plan: 0.0).all()
    assert steps == [(1, 7, "trying removals"), (3, 7, "trying removals"), (7, 7, "trying removals")]
    steps.clear()
    assert longest(trial(7, steps), lambda plan: 2.0 * (len(plan.steps) > 5)) == 5
    assert [done for done, _, _ in steps] == list(range(1, len(steps) + 1))
    assert {what for _, _, what in steps} == {"trying removals with repair"}
    assert [total for _, total, _ in steps] == [3, 4, 4, 4]


def test_lengths_that_are_sure_are_not_tried() -> None:
    tried: list[int] = []

    def loss(plan: Plan) -> float:
        tried.append(len(plan.steps))
        return 2.0 * (len(plan.steps) > 6)

    assert longest(trial(12), loss, 5) == 6
    assert all(length > 5 for length in tried)
    tried.clear()
    assert longest(trial(12), loss) == 6
    assert tried[0] == 1
    assert 1 not in tried[1:]

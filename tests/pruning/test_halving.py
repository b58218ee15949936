"""Search in few tries, against trying layers one by one."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

import redtest_onnx as rt
from redtest_onnx.pruning.criteria.base import ScoredLayer
from redtest_onnx.pruning.halving import PATIENCE, Removals, Trial, longest, removed_parameters
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.runtime.workbench import Workbench

MODELS = Path(__file__).parents[2] / "models"


@cache
def bench() -> Workbench:
    model = rt.load(MODELS / "resnet_digits.onnx")
    return Workbench(model, rt.open_data(MODELS / "digits.npz", model), rt.RunOptions("cpu", 1))


def trial(count: int, limit: float) -> Trial:
    layers = [layer for layer in bench().layers() if layer.removable][:count]
    return Trial(bench(), "test", [ScoredLayer(layer, 0.0) for layer in layers], limit)


class Costs:
    """Losses that add up, and how often one was asked for."""

    def __init__(self, candidates: Trial, costs: list[float]) -> None:
        names = [item.layer.name for item in candidates.candidates]
        self.costs = dict(zip(names, costs, strict=True))
        self.tries = 0

    def __call__(self, plan: Plan) -> float:
        self.tries += 1
        return sum(self.costs[step.region] for step in plan.steps)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.4, 5.0]), min_size=1, max_size=20))
def test_groups_find_what_single_steps_find(costs: list[float]) -> None:
    searched = trial(len(costs), 1.0)
    loss = Costs(searched, costs)
    kept: list[str] = []
    total, failed = 0.0, 0
    for item, cost in zip(searched.candidates, costs, strict=True):
        if failed < PATIENCE and total + cost <= 1.0:
            kept.append(item.layer.name)
            total, failed = total + cost, 0
        else:
            failed += 1
    assert [item.layer.name for item in Removals(searched, loss).all()] == kept


def test_long_runs_take_few_tries() -> None:
    searched = trial(20, 1.0)
    loss = Costs(searched, [0.0] * 20)
    assert len(Removals(searched, loss).all()) == 20
    assert loss.tries <= 6


def test_where_nothing_fits_few_are_tried() -> None:
    searched = trial(20, 1.0)
    loss = Costs(searched, [5.0] * 20)
    assert Removals(searched, loss).all() == []
    assert loss.tries == PATIENCE
    loss = Costs(searched, [5.0] * 20)
    assert longest(searched, loss) == 0
    assert loss.tries == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 20), st.integers(0, 20))
def test_the_longest_beginning_is_found_by_bisection(fitting: int, sure: int) -> None:
    searched = trial(20, 1.0)
    loss = Costs(searched, [0.0] * fitting + [5.0] * (20 - fitting))
    assert longest(searched, loss, min(sure, fitting)) == fitting
    assert loss.tries <= 6


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.4, 5.0]), min_size=1, max_size=20), st.integers(0, 20))
def test_what_can_still_go_bounds_what_goes_in_the_end(costs: list[float], after: int) -> None:
    searched = trial(len(costs), 1.0)
    removals = Removals(searched, Costs(searched, costs))
    for _ in range(after):
        if not removals.done:
            removals.advance()
    most, beginning = removals.most, list(removals.kept) if removals.unbroken else None
    if beginning is not None:
        assert beginning == list(searched.candidates[: len(beginning)])
    assert removed_parameters(removals.all()) <= most

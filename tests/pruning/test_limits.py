"""What a written model must keep to: which targets count as missed, and when a latency is believed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

import redtest_onnx as rt
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.limits import Limits
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.targets import QUANTITIES
from redtest_onnx.runtime.workbench import Workbench

MODELS = Path(__file__).parents[2] / "models"


@cache
def sides() -> tuple[Workbench, Workbench]:
    """A model, and what is left of it without half of its layers."""
    model = rt.load(MODELS / "resnet_digits.onnx")
    bench = Workbench(model, rt.open_data(MODELS / "digits.npz", model), rt.RunOptions("cpu", 1))
    layers = [layer for layer in bench.layers() if layer.action == "bypass"]
    plan = Plan("test", bench.digest, tuple(map(Step.of, layers[::2])))
    return bench, bench.successor(apply_plan(bench, plan))


def test_shares_are_those_of_the_costs() -> None:
    before, after = sides()
    limits = Limits(before)
    assert limits.left("params", after) == after.cost.parameters / before.cost.parameters < 1
    assert limits.left("macs", after) == (after.cost.macs or 0) / (before.cost.macs or 1) < 1
    assert limits.left("size", after) == after.model.file_bytes / before.model.file_bytes < 1
    peaks = [side.cost.peak_activation_bytes or 0 for side in (after, before)]
    assert limits.left("memory", after) == peaks[0] / peaks[1]
    assert limits.left("latency", after) > 0
    assert all(limits.left(quantity, before) == 1 for quantity in QUANTITIES if quantity != "latency")


def test_a_target_is_met_exactly_and_missed_by_little() -> None:
    before, after = sides()
    share = Limits(before).left("params", after)
    assert Limits(before, (("params", share),)).allow(after)
    tight = Limits(before, (("macs", 1.0), ("params", share * 0.999)))
    assert tight.missed(after) == [("params", share * 0.999, share)]
    assert not tight.allow(after)
    with pytest.raises(rt.NegativeVerdictError, match=rf"without 3 layers {share:.3f} is left"):
        tight.require(after, range(3))
    Limits(before, (("params", share),)).require(after, ())


def test_what_is_larger_is_refused_whatever_it_has_more_of() -> None:
    before, after = sides()
    assert not Limits(before).larger(before)
    assert not Limits(before).larger(after)
    assert Limits(after).larger(before)
    with pytest.raises(rt.NegativeVerdictError, match="larger than the original"):
        Limits(after).require(before, ())


class Scripted(Limits):
    """Timings in a given order."""

    def left(self, quantity: str, pruned: Workbench) -> float:
        assert quantity == "latency"
        return timings.pop(0)


timings: list[float] = []


@pytest.mark.parametrize(
    ("told", "missed", "unread"),
    [
        ([0.8, 2.0, 2.0], None, 2),  # the first will do
        ([0.9, 2.0, 2.0], None, 2),  # so does the target itself
        ([1.5, 0.85, 2.0], None, 1),
        ([1.5, 1.4, 0.94], None, 0),  # within the noise
        ([1.5, 0.96, 1.4], 0.96, 0),  # the best of three
        ([1.5, 1.4, 1.2], 1.2, 0),
    ],
)
def test_a_latency_has_three_tries(told: list[float], missed: float | None, unread: int) -> None:
    timings[:] = told
    found = Scripted(sides()[0], (("latency", 0.9),)).missed(sides()[1])
    assert found == ([] if missed is None else [("latency", 0.9, missed)])
    assert len(timings) == unread

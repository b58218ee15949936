"""The walk of a refit: what operators aim at, which are in scope, and what is kept between runs."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.data.arrays import ArrayData
from redtest_onnx.graph.linear_operators import linear_operators
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.metrics.penalised import Diagnosis
from redtest_onnx.pruning.apply import AdapterInsertion, apply_plan
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.repair.equations import Correction
from redtest_onnx.pruning.repair.pairs import PairValues
from redtest_onnx.pruning.repair.partial_runner import Part, PartialRunner
from redtest_onnx.pruning.repair.refit import Effort, Refit, _Front, _Goals, _solve, record, refit
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

CPU = rt.RunOptions("cpu", 1)
COUNT = 22
MODELS = Path(__file__).parents[3] / "models"


@cache
def bench() -> Workbench:
    """p0 r0 p1 r1 p2 r2 p3 y: products, the first three with a Relu behind."""
    net = Net(x=("n", 4))
    source = "x"
    for k in range(3):
        source = net("Relu", net("MatMul", source, net.weight(4, 4), name=f"p{k}"), name=f"r{k}")
    source = net("MatMul", source, net.weight(4, 4), name="p3")
    model = net.model(net("MatMul", source, net.weight(4, 2), name="y"))
    values = np.random.default_rng(0).normal(size=(COUNT, 4)).astype(np.float32)
    return Workbench(model, ArrayData.in_memory("drawn", {"x": values}), CPU)


def runner(size: int = 8, memory: int = 1 << 30) -> PartialRunner:
    source = Workbench(bench().model, bench().data, rt.RunOptions("cpu", 1, memory=memory))
    return PartialRunner(source, np.arange(COUNT), size=size)


def whole(name: str) -> np.ndarray[Any, Any]:
    return np.asarray(
        Session(expose(bench().model, [name]), CPU).run(bench().data.inputs(np.arange(COUNT)))[name]
    )


def test_runs_count_their_samples() -> None:
    assert runner().counts == (8, 8, 6)
    assert runner().counted(0) is None


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 1, 0, 2, 0)])
@pytest.mark.parametrize("limit", [1 << 28, 90, 0])
def test_goals_are_the_originals_values_in_any_order(order: tuple[int, ...], limit: int) -> None:
    goals = _Goals(runner(memory=12 * limit), "p1", 0)
    expected = whole("p1")
    for run in order:
        np.testing.assert_allclose(goals(run), expected[8 * run : 8 * run + 8], rtol=1e-5, atol=1e-6)
    assert len(goals._kept) == (3 if limit > 90 else 0)


def test_goals_are_kept_up_to_a_twelfth_of_the_memory() -> None:
    one = 8 * 4 * 4
    goals = _Goals(runner(memory=12 * 2 * one), "p1", 0)
    for run in range(3):
        goals(run)
    assert sorted(goals._kept) == [0, 1]


def test_goals_of_narrowed_tensors_are_taken_and_not_handed_on() -> None:
    source = runner()
    goals = _Goals(source, "p1", 0, lambda values: values[:, :2])
    for run in range(3):
        np.testing.assert_allclose(goals(run), whole("p1")[8 * run : 8 * run + 8, :2], rtol=1e-5, atol=1e-6)
    kept: list[str] = []
    source.keep = lambda name, values: kept.append(name)  # type: ignore[method-assign]
    goals.hand_on()
    assert kept == []
    plain = _Goals(source, "p1", 0)
    for run in range(3):
        plain(run)
    plain.hand_on()
    assert kept == ["p1"]


def plan(entry: str, exit_: str) -> Plan:
    return Plan("test", bench().digest, (Step("gap", entry, exit_, "bypass", None, 0, 0),))


def done(chosen: Plan, **options: Any) -> tuple[rt.Model, list[Refit]]:
    pruned = apply_plan(bench(), chosen)
    model, refits = refit(bench(), AdapterInsertion(pruned), chosen, np.arange(COUNT), **options)
    return model, list(refits)


def test_all_that_see_other_values_or_only_those_in_front_of_gaps() -> None:
    told: list[tuple[int, int, str]] = []
    model, refits = done(plan("r0", "r1"), effort=Effort(0), progress=lambda *step: told.append(step))
    names = [item.operator for item in refits]
    assert set(names) <= {"node_p0", "node_p2", "node_p3", "node_y"}
    assert names[0] == "node_p0"
    assert told == [(k, 4, "repairing") for k in range(5)]
    told.clear()
    _, gaps = done(plan("r0", "r1"), effort=Effort(0), scope="gaps", progress=lambda *step: told.append(step))
    assert [item.operator for item in gaps] == ["node_p0"]
    assert told == [(0, 1, "repairing"), (1, 1, "repairing")]
    assert {item.rounds for item in refits} == {0}
    assert all(item.unknowns == 4 and item.rows == COUNT for item in refits)
    assert [node.output[0] for node in model.graph.node] == ["p0", "r0", "p2", "r2", "p3", "y"]


def test_pairs_are_solved_together_as_often_as_asked() -> None:
    _, once = done(plan("r0", "r1"), effort=Effort(1))
    assert {item.rounds for item in once} <= {0, 1}
    assert max(item.rounds for item in once) == 1
    _, often = done(plan("r0", "r1"), effort=Effort(3))
    assert 1 <= max(item.rounds for item in often) <= 3


@pytest.mark.parametrize("removed", [0, 2])
def test_the_pruned_model_starts_where_it_parts_from_the_original(
    removed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = rt.load(MODELS / "resnet_digits.onnx")
    own = Workbench(model, rt.open_data(MODELS / "digits.npz", model), CPU)
    blocks = [layer for layer in own.layers("layer") if layer.removable]
    chosen = Plan("test", own.digest, (Step.of(blocks[removed]),))
    insertion = AdapterInsertion(apply_plan(own, chosen))
    asked: list[tuple[int, int]] = []
    follow = PartialRunner.follow

    def noted(self: PartialRunner, source: PartialRunner, reached: int, node: int) -> None:
        asked.append((reached, node))
        follow(self, source, reached, node)

    monkeypatch.setattr(PartialRunner, "follow", noted)
    shared = refit(own, insertion, chosen, np.arange(64), effort=Effort(1))[0]
    assert len(asked) == 1
    assert min(asked[0]) > 0
    monkeypatch.setattr(PartialRunner, "follow", lambda *given: None)
    alone = refit(own, insertion, chosen, np.arange(64), effort=Effort(1))[0]
    feeds = own.data.inputs(np.arange(64))
    one, other = (Session(fitted, CPU).run(feeds)[model.outputs[0].name] for fitted in (shared, alone))
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_as_many_threads_as_one_likes_give_the_same_weights() -> None:
    def weights(threads: int) -> bytes:
        model = rt.load(MODELS / "resnet_digits.onnx")
        data = rt.open_data(MODELS / "digits.npz", model)
        own = Workbench(model, data, rt.RunOptions("cpu", threads))
        blocks = [layer for layer in own.layers("block") if layer.removable]
        chosen = Plan("test", own.digest, tuple(Step.of(layer) for layer in blocks[:2]))
        insertion = AdapterInsertion(apply_plan(own, chosen))
        fitted, items = refit(own, insertion, chosen, np.arange(256), effort=Effort(2))
        assert max(item.rounds for item in items) == 2
        return fitted.proto.SerializeToString(deterministic=True)

    assert weights(1) == weights(3)


def test_a_refit_brings_outputs_nearer_to_the_originals() -> None:
    chosen = plan("r0", "r1")
    feeds = bench().data.inputs(np.arange(COUNT))
    wanted = whole("y")

    def error(model: rt.Model) -> float:
        return float(np.linalg.norm(np.asarray(Session(model, CPU).run(feeds)["y"]) - wanted))

    plain = error(apply_plan(bench(), chosen))
    fitted = error(done(chosen, effort=Effort(0))[0])
    jointly = error(done(chosen)[0])
    assert jointly <= fitted * 1.05 < 0.9 * plain


def test_what_each_fit_explains_is_logged_in_percent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "redtest_onnx.pruning.repair.refit")
    _, refits = done(plan("r0", "r1"), effort=Effort(0))
    lines = [item.getMessage() for item in caplog.records if item.name.endswith("repair.refit")]
    assert lines == [
        f"refit {item.operator}: {100 * item.explained:.1f} % of the error explained" for item in refits
    ]
    assert max(item.explained for item in refits) > 0.05


def test_where_nothing_changed_nothing_is_fitted() -> None:
    empty = Plan("test", bench().digest, ())
    model, refits = refit(bench(), AdapterInsertion(bench().model), empty, np.arange(COUNT))
    assert refits == ()
    assert model is bench().model


def test_a_record_says_what_the_fit_was() -> None:
    fit = Correction(np.ones((2, 3)), np.ones(2), 0.5, 3, 40, Diagnosis(7.0, 2))
    assert record("mine", fit, 2) == Refit("mine", 0.5, 7.0, 2, 3, 40, 2)


def test_a_part_computes_with_the_weights_of_its_time() -> None:
    source = runner()
    part = source.part(["r1"])
    np.testing.assert_allclose(part(1)["r1"], whole("r1")[8:16], rtol=1e-5, atol=1e-6)
    given = np.ones((8, 4), np.float32)
    other = source.part(["r1"], {"r0": given})
    found = other(0, {"r0": given})["r1"]
    assert np.ptp(found, axis=0).max() == 0  # rows alike, whatever the samples
    whole_run = Part(source, ["x", "r1"], {})
    np.testing.assert_array_equal(whole_run(2)["x"], bench().data.inputs(np.arange(16, COUNT))["x"])
    assert len(whole_run(2)["r1"]) == 6


@pytest.mark.parametrize("shape", [(8, 3), (7, 4), (8, 4, 1)])
def test_goals_of_another_shape_give_no_correction(shape: tuple[int, ...]) -> None:
    operator = linear_operators(bench().model)[1]
    front = _Front(runner(), 0)
    goals = [np.zeros((8, 4)), np.zeros(shape), np.zeros((6, 4))]
    assert _solve(front, bench().index, (None, operator), goals.__getitem__, PairValues(), Effort()) is None
    goals[1] = np.zeros((8, 4))
    found = _solve(front, bench().index, (None, operator), goals.__getitem__, PairValues(), Effort())
    assert found is not None
    assert found.diagnosis is not None

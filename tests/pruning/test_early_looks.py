"""Plans that are turned down early: from which answer on, and what counts as an answer."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.data.arrays import ArrayData
from redtest_onnx.pruning.candidates import (
    Candidates,
    _one_class_per_sample,
    _scores,
    losses_within,
    plain_model,
)
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.runtime.outputs.kinds import parse_output_kind
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

COUNT = 240


@cache
def network() -> rt.Model:
    """Scores of two classes: those of the input, behind a block that may go."""
    net = Net(x=("n", 2))
    first = net("MatMul", "x", net.store(np.eye(2)), name="first")
    block = net("Add", first, net("MatMul", net("Relu", first), net.store(np.zeros((2, 2)))), name="block")
    return net.model(net("MatMul", block, net.store(np.eye(2)), name="y"))


def bench(*kinds: str, labels: bool = True, count: int = COUNT) -> Workbench:
    values = np.random.default_rng(0).normal(size=(count, 2)).astype(np.float32)
    data = ArrayData.in_memory("drawn", {"x": values}, values.argmax(axis=1) if labels else None)
    options = rt.RunOptions("cpu", 1, output_kinds=tuple(map(parse_output_kind, kinds)))
    return Workbench(network(), data, options)


class Answering(Session):
    """Gives scores whose answers are wrong on the first so many of the samples it is asked for."""

    def __init__(self, wrong: int, own: Workbench) -> None:
        super().__init__(network(), own.options)
        self.wrong, self.asked = wrong, 0

    def run(self, feeds: Any, *rest: Any) -> dict[str, Any]:
        scores = np.array(feeds["x"])
        bad = max(0, min(len(scores), self.wrong - self.asked))
        scores[:bad] = scores[:bad, ::-1]
        self.asked += len(scores)
        return {"y": scores}


@pytest.mark.parametrize("labels", [True, False])
def test_a_plan_is_hopeless_once_too_many_answers_are_wrong(labels: bool) -> None:
    own = bench("y=classes", labels=labels)
    total = len(own.splits.choose)
    assert total == 80
    candidates = Candidates(own, 5 / total)
    assert [len(right) for _, right in candidates._looks] == [32, 32, 16]
    for wrong in (0, 4, 5):
        assert not candidates._hopeless(Answering(wrong, own))
    for wrong in (6, 32, 80):
        session = Answering(wrong, own)
        assert candidates._hopeless(session)
        assert session.asked == 32  # after the first look


def test_wrong_answers_of_several_looks_add_up() -> None:
    own = bench("y=classes")
    candidates = Candidates(own, 40 / 80)
    session = Answering(41, own)
    assert candidates._hopeless(session)
    assert session.asked == 64
    assert not candidates._hopeless(Answering(40, own))


def test_a_whole_run_follows_where_nothing_is_hopeless() -> None:
    own = bench("y=classes")
    layer = next(layer for layer in own.layers() if layer.action == "bypass")
    plan = Plan("test", own.digest, (Step.of(layer),))
    assert Candidates(own, 0.1).loss(plan) == 0.0
    losses = losses_within(own, 0.1, "none")
    assert losses.plain(plan) == 0.0
    assert losses.repaired is None
    fitted = losses_within(own, 0.1, "refit").repaired
    assert fitted is not None
    assert fitted(plan) == pytest.approx(0.0, abs=0.02)


def test_only_one_class_per_sample_is_looked_at() -> None:
    assert _one_class_per_sample(bench("y=classes").outputs)
    assert not _one_class_per_sample(bench("y=values").outputs)
    assert not _one_class_per_sample(())
    assert Candidates(bench("y=values"), 0.1)._looks == []


def test_no_more_than_four_looks_are_taken() -> None:
    own = bench("y=classes", count=2000)
    candidates = Candidates(own, 0.1)
    assert [len(right) for _, right in candidates._looks] == [32] * 4


def scores_of(shape: tuple[int, ...]) -> Any:
    net = Net(x=("n", 4))
    sizes = net.store([-1 if k == 0 else size for k, size in enumerate(shape)], np.int64)
    model = net.model(net("Reshape", "x", sizes, name="y"))
    found = _scores(Session(model, rt.RunOptions("cpu", 1)), {"x": np.array([[1, 3, 2, 0]] * 3, np.float32)})
    return None if found is None else found.argmax(axis=1)


def test_answers_are_the_largest_of_at_least_two_scores() -> None:
    assert scores_of((3, 4)).tolist() == [1, 1, 1]
    assert scores_of((6, 2)).tolist() == [1, 0] * 3
    assert scores_of((12, 1)) is None
    assert scores_of((3, 2, 2)) is None


def test_a_plan_that_can_not_be_run_loses_everything() -> None:
    own = bench("y=classes")
    broken = Plan("test", own.digest, (Step("gone", "x", "nowhere", "bypass", None, 0, 0),))
    assert Candidates(own, 0.1)._loss(broken, lambda: (_ for _ in ()).throw(rt.InputError("no"))) == float(
        "inf"
    )


def test_bypassed_layers_are_rewired_and_others_are_edited() -> None:
    own = bench("y=classes")
    layer = next(layer for layer in own.layers() if layer.action == "bypass")
    fast = plain_model(own, Plan("test", own.digest, (Step.of(layer),)))
    assert [node.output[0] for node in fast.graph.node][-1] == "y"
    assert len(fast.graph.node) < len(own.model.graph.node)
    whole = plain_model(own, Plan("test", own.digest, ()))
    assert [node.output[0] for node in whole.graph.node] == [node.output[0] for node in own.model.graph.node]

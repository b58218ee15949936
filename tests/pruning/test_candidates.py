from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net
from onnx import helper

import redtest_onnx as rt
from redtest_onnx.graph.bypass import bypassed
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.budget import drop
from redtest_onnx.pruning.candidates import Candidates, plain_model
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.runtime.outputs.kinds import parse_output_kind
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

MODELS = Path(__file__).parents[2] / "models"


@cache
def bench(name: str) -> Workbench:
    model = rt.load(MODELS / f"{name}_digits.onnx")
    return Workbench(model, rt.open_data(MODELS / "digits.npz", model), rt.RunOptions("cpu", 1))


def plans(name: str, action: str = "bypass") -> list[Plan]:
    layers = [layer for layer in bench(name).layers() if layer.action == action]
    chosen = [layers[:1], layers[-2:], layers[::2], layers]
    return [Plan("test", bench(name).digest, tuple(map(Step.of, part))) for part in chosen]


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_rewired_names_compute_what_surgery_writes(name: str) -> None:
    feeds = bench(name).data.inputs(np.arange(8))
    for plan in plans(name):
        assert plan.steps
        fast, written = plain_model(bench(name), plan), apply_plan(bench(name), plan)
        assert fast is not written
        assert {t.name for t in fast.graph.initializer} == {t.name for t in written.graph.initializer}
        one, other = (
            next(iter(Session(m, bench(name).options).run(feeds).values())) for m in (fast, written)
        )
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)  # kernels may be chosen differently


def test_layers_that_need_an_adapter_go_by_surgery() -> None:
    plan = plans("vgg", "adapter")[0]
    names = {node.name for node in plain_model(bench("vgg"), plan).graph.node}
    assert names == {node.name for node in apply_plan(bench("vgg"), plan).graph.node}


def test_an_output_keeps_its_name_where_its_layer_goes() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Sigmoid", ["a"], ["y"])]
    infos = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    graph, opsets = helper.make_graph(nodes, "g", infos[:1], infos[1:]), [helper.make_opsetid("", 17)]
    model = Model(helper.make_model(graph, ir_version=8, opset_imports=opsets))
    found = bypassed(model, {"y": "a"})
    assert found is not None
    x = np.array([[-1, 0, 2]], np.float32)
    np.testing.assert_array_equal(Session(found).run({"x": x})["y"], np.maximum(x, 0))


def test_a_tensor_that_a_branch_captures_is_left_to_surgery() -> None:
    then, other = (
        helper.make_graph(
            [helper.make_node(op, ["b"], [f"{op}_out"])],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}_out", onnx.TensorProto.FLOAT, None)],
        )
        for op in ("Relu", "Neg")
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Sigmoid", ["a"], ["b"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    given = [
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3]),
        helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []),
    ]
    result = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3])]
    model = Model(helper.make_model(helper.make_graph(nodes, "g", given, result), ir_version=8))
    assert bypassed(model, {"b": "a"}) is None


@pytest.mark.parametrize("limit", [0.0, 0.02, 0.3])
def test_a_plan_is_turned_down_early_only_if_it_loses_too_much(limit: float) -> None:
    here = bench("resnet")
    evaluator = here.evaluator(here.splits.choose)
    candidates = Candidates(here, limit)
    early = 0
    for plan in plans("resnet"):
        loss = drop(evaluator.reference, evaluator.evaluate(apply_plan(here, plan)))
        found = candidates.loss(plan)
        assert (found <= limit) == (loss <= limit)
        early += found == np.inf
        assert found in (loss, np.inf)
    assert early


def regression() -> Model:
    net = Net(x=["N", 16])
    x = "x"
    for _ in range(5):
        x = net("Tanh", net("MatMul", x, net.store(np.eye(16) + 0.03 * np.ones((16, 16)))))
    net("MatMul", x, net.weight(16, 4), name="y")
    return net.model("y")


def test_values_are_given_up_only_where_a_whole_run_would_be_too() -> None:
    model = regression()
    data = {"x": np.random.default_rng(0).normal(size=(600, 16)).astype(np.float32)}
    options = rt.RunOptions("cpu", 1, output_kinds=(parse_output_kind("y=values"),))
    tried = Workbench(model, rt.open_data(data, model), options)
    evaluator = tried.evaluator(tried.splits.choose)
    layers = [layer for layer in tried.layers() if layer.removable]
    chosen = [Plan("test", tried.digest, (Step.of(layer),)) for layer in layers]
    whole = [evaluator.evaluate(plain_model(tried, plan)) for plan in chosen]
    limits = [1 - (found.agreement.value or 0) for found in whole]
    for limit in (1e-6, *(limit + nudge for limit in limits for nudge in (-1e-4, 1e-4))):
        candidates = Candidates(tried, limit)
        assert [candidates.loss(plan) <= limit for plan in chosen] == [loss <= limit for loss in limits]
    stopped = evaluator.evaluate(plain_model(tried, chosen[0]), 0.999)
    assert stopped.samples < whole[0].samples
    assert (stopped.agreement.value or 0) < 0.999

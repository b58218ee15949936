"""Networks inside If and local functions, opened for the work on them and put back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net
from onnx import TensorProto, helper, numpy_helper

import redtest_onnx as rt
from redtest_onnx.graph.branches import InlinedModel, inline_branches
from redtest_onnx.graph.surgery import Removal, remove_regions
from redtest_onnx.graph.validity import full_check
from redtest_onnx.layers.layer import Layer, find_layers
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

SILERO = Path(__file__).parents[3] / "shared" / "models" / "wild" / "silero_vad.onnx"
CPU = rt.RunOptions("cpu", 1)
SWITCH = {k: {"mode": np.array(k)} for k in (0, 1)}


def network(name: str, source: str, depth: int, *, results: int = 1) -> onnx.GraphProto:
    """A branch with layers of its own: products, each with an activation."""
    rng = np.random.default_rng(depth)
    nodes, weights, h = [], [], source
    for k in range(depth):
        weights.append(numpy_helper.from_array(rng.normal(size=(4, 4)).astype(np.float32), f"{name}_w{k}"))
        nodes.append(
            helper.make_node("MatMul", [h, weights[-1].name], [f"{name}_p{k}"], name=f"{name}/{k}/p")
        )
        nodes.append(helper.make_node("Tanh", [f"{name}_p{k}"], [f"{name}_h{k}"], name=f"{name}/{k}/t"))
        h = f"{name}_h{k}"
    made = [f"{name}_h{depth - 1 - k}" for k in range(results)]
    values = [helper.make_tensor_value_info(made_, TensorProto.FLOAT, None) for made_ in made]
    return helper.make_graph(nodes, name, [], values, weights)


def switched(
    mode: int = 1, *, results: int = 1, read: int = 1, clash: bool = False, shared: bool = False
) -> rt.Model:
    """A network chosen by the input `mode`, between two products of the main graph.

    The branch for `mode` goes on from the first product; the other one too, if they are to share it.
    """
    net = Net()
    net.add_input("x", TensorProto.FLOAT, ["n", 4])
    net.add_input("mode", TensorProto.INT64, [])
    stem = net("Tanh", net("MatMul", "x", net.weight(4, 4)), name="stem")
    a, b = (stem if shared or mode == taken else "x" for taken in (1, 0))
    yes = net("Equal", "mode", net.store(1, np.int64))
    then = network("a", a, 3, results=results)
    other = network("a" if clash else "b", b, 2, results=results)
    made = [f"r{k}" for k in range(results)]
    node = helper.make_node("If", [yes], made, name="choice", then_branch=then, else_branch=other)
    net.nodes.append(node)
    h = made[0]
    for k in range(1, read):
        h = net("Add", h, made[k])
    h = net("Tanh", net("MatMul", h, net.weight(4, 4)), name="behind")
    return net.model(net("MatMul", h, net.weight(4, 3), name="y"))


def outputs(model: rt.Model, mode: int, batch: int = 3) -> np.ndarray:
    x = np.random.default_rng(7).normal(size=(batch, 4)).astype(np.float32)
    return np.asarray(Session(model, CPU).run({"x": x, **SWITCH[mode]})["y"])


def layers(view: InlinedModel) -> list[Layer]:
    bench = Workbench(view.model, rt.open_data(None, view.model), CPU).unopened
    return list(find_layers(bench.index, bench.shapes, view.choices))


@pytest.mark.parametrize("clash", [False, True])
@pytest.mark.parametrize("mode", [0, 1])
def test_the_branch_taken_is_opened_and_put_back(mode: int, clash: bool) -> None:
    model = switched(mode, clash=clash)
    view = inline_branches(model, SWITCH[mode])
    assert str(view.choices[0]).endswith(f"taken for mode = {mode}")
    assert not any(node.op_type == "If" for node in view.model.graph.node)
    np.testing.assert_array_equal(outputs(view.model, mode), outputs(model, mode))
    assert view.close(view.model) is model
    copied = onnx.ModelProto()
    copied.CopyFrom(view.model.proto)
    closed = view.close(view.model.edited(copied))
    full_check(closed)
    for value in (0, 1):
        np.testing.assert_array_equal(outputs(closed, value), outputs(model, value))


def test_without_the_value_it_stays_whole() -> None:
    model = switched()
    view = inline_branches(model)
    assert view.model is model
    inside = next(layer for layer in layers(view) if layer.kind == "If")
    assert "depends on what is fed" in (inside.reason or "")
    assert inside.parameters == 5 * 16


@pytest.mark.parametrize("results", [1, 2])
@pytest.mark.parametrize("mode", [0, 1])
def test_removing_any_layer_leaves_the_other_branch_alone(mode: int, results: int) -> None:
    model = switched(mode, results=results, read=results)
    view = inline_branches(model, SWITCH[mode])
    removable = [layer for layer in layers(view) if layer.action == "bypass"]
    assert len(removable) >= 3 - results
    assert any(layer.tensor.startswith("ab"[1 - mode]) for layer in removable)
    for layer in removable:
        flat = remove_regions(view.model, [Removal(layer.input or "", layer.exit)])
        closed = view.close(flat)
        full_check(closed)
        assert closed.inputs == model.inputs
        assert closed.outputs == model.outputs
        assert any(node.op_type == "If" for node in closed.graph.node)
        np.testing.assert_array_equal(outputs(closed, mode), outputs(flat, mode))
        if layer.tensor.startswith(("a_", "b_")):
            np.testing.assert_array_equal(outputs(closed, 1 - mode), outputs(model, 1 - mode))


def test_a_result_without_readers() -> None:
    model = switched(results=2, read=1)
    view = inline_branches(model, SWITCH[1])
    layer = next(layer for layer in layers(view) if layer.action == "bypass")
    closed = view.close(remove_regions(view.model, [Removal(layer.input or "", layer.exit)]))
    full_check(closed)
    np.testing.assert_array_equal(outputs(closed, 0), outputs(model, 0))


def test_branches_that_share_values_stay_whole() -> None:
    model = switched(shared=True)
    view = inline_branches(model, SWITCH[1])
    # The branch not taken needs the stem, which an edit might remove.
    assert view.model is model


def test_conditions_of_constants_and_declared_shapes_hold_for_all_inputs() -> None:
    net = Net()
    net.add_input("x", TensorProto.FLOAT, ["n", 4])
    rank = net("Size", net("Shape", "x"))
    wide = net("Equal", net("Gather", net("Shape", "x"), net.store(1, np.int64)), net.store(4, np.int64))
    both = net("And", net("Not", net("Equal", rank, net.store(3, np.int64))), wide)
    inner = network("a", "x", 2)
    never = network("never", "x", 1)
    outer = helper.make_graph(
        [
            helper.make_node("Constant", [], ["sure"], value=numpy_helper.from_array(np.array(False))),
            helper.make_node("If", ["sure"], ["o"], then_branch=never, else_branch=inner),
        ],
        "outer",
        [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)],
    )
    other = network("b", "x", 1)
    net.nodes.append(helper.make_node("If", [both], ["r"], then_branch=outer, else_branch=other))
    model = net.model(net("MatMul", "r", net.weight(4, 3), name="y"))
    view = inline_branches(model)
    assert not view.choices
    assert not any(node.op_type == "If" for node in view.model.graph.node)
    x = {"x": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)}
    np.testing.assert_array_equal(Session(view.model, CPU).run(x)["y"], Session(model, CPU).run(x)["y"])


def test_a_size_left_open_decides_nothing() -> None:
    net = Net()
    net.add_input("x", TensorProto.FLOAT, ["n", 4])
    one = net("Equal", net("Gather", net("Shape", "x"), net.store(0, np.int64)), net.store(1, np.int64))
    node = helper.make_node(
        "If", [one], ["r"], then_branch=network("a", "x", 1), else_branch=network("b", "x", 2)
    )
    net.nodes.append(node)
    model = net.model(net("MatMul", "r", net.weight(4, 3), name="y"))
    assert inline_branches(model).model is model


@pytest.mark.parametrize("version", [17, 14, 18])
def test_local_functions_are_inlined(version: int) -> None:
    """Also those that import another version, in which their operators are the same."""
    body = [
        helper.make_node("MatMul", ["v", "w"], ["p"]),
        helper.make_node("Relu", ["p"], ["r"]),
    ]
    block = helper.make_function("own", "Block", ["v", "w"], ["r"], body, [helper.make_opsetid("", version)])
    net = Net()
    h = net.add_input("x", TensorProto.FLOAT, ["n", 4])
    for _ in range(3):
        h = net("Block", h, net.weight(4, 4), domain="own")
    graph = helper.make_graph(
        [*net.nodes, helper.make_node("MatMul", [h, net.weight(4, 3)], ["y"], name="last")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        net.weights,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = rt.Model(helper.make_model(graph, functions=[block], opset_imports=opsets, ir_version=9))
    data = rt.open_data(None, model)
    analysis = rt.analyze(model, data, rt.AnalysisSettings(samples=8, batches=1))
    assert [layer.kind for layer in analysis.layers] == ["MatMul"] * 3
    assert analysis.cost is not None
    assert analysis.cost.macs == 3 * 16 + 12
    result = rt.prune(model, data, remove=1).model
    full_check(result)
    assert result.opsets == model.opsets


def test_functions_whose_operators_differ_between_versions_stay_and_have_no_known_cost() -> None:
    """Softmax of version 12 takes all axes behind the axis together, that of 13 the axis alone."""
    body = [helper.make_node("MatMul", ["v", "w"], ["p"]), helper.make_node("Softmax", ["p"], ["r"], axis=1)]
    block = helper.make_function("own", "Block", ["v", "w"], ["r"], body, [helper.make_opsetid("", 12)])
    net = Net()
    h = net("Block", net.add_input("x", TensorProto.FLOAT, ["n", 4]), net.weight(4, 4), domain="own")
    graph = helper.make_graph(
        [*net.nodes, helper.make_node("Relu", [h], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        net.weights,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = rt.Model(helper.make_model(graph, functions=[block], opset_imports=opsets, ir_version=9))
    bench = Workbench(model, rt.open_data(None, model))
    assert [node.op_type for node in bench.view.model.graph.node] == ["Block", "Relu"]
    assert bench.cost.macs is None
    assert bench.cost.parameters == 16


@pytest.mark.skipif(not SILERO.exists(), reason="silero is not beside the checkout")
def test_the_network_inside_silero_is_found_and_pruned() -> None:
    model = rt.load(SILERO)
    data = rt.open_data(None, model, count=64)
    view = Workbench(model, data).view
    found = layers(view)
    assert [layer.kind for layer in found].count("Conv") == 5
    analysis = rt.analyze(model, data, rt.AnalysisSettings(samples=16, batches=1))
    assert "sr = 16000" in analysis.branches[0]
    # Its layers change the width: without data nothing could be fitted in their place, unless that is wanted.
    with pytest.raises(rt.NegativeVerdictError, match="4 need an adapter"):
        rt.plan(model, data, remove=1, analysis=analysis)
    how = rt.PruneSettings(repair="adapter")
    plan = rt.plan(model, data, how, remove=1, analysis=analysis)
    pruned = rt.prune(model, data, how, plan=plan, analysis=analysis).model
    assert plan.steps[0].region in {layer.name for layer in found}
    rng = np.random.default_rng(0)
    feeds = {
        "input": rng.normal(size=(2, 256)).astype(np.float32),
        "state": np.zeros((2, 2, 128), np.float32),
    }
    before, after = (Session(m, CPU).run({**feeds, "sr": np.array(8000)}) for m in (model, pruned))
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)

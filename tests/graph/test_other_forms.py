"""Models in other forms with the same meaning: what changes in the graph, and that values don't."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from nets import Net
from onnx import TensorProto

import redtest_onnx as rt
from redtest_onnx.graph.bfloat16 import holds_bfloat16, in_float32
from redtest_onnx.graph.channel_edits import keep_channels, silence_channels
from redtest_onnx.graph.inner_widths import inner_widths
from redtest_onnx.graph.skip_norms import split_skip_norms
from redtest_onnx.graph.tolerance import tolerate
from redtest_onnx.runtime.session import Session

CPU = rt.RunOptions("cpu", 1)
X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def run(model: rt.Model) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return {name: np.asarray(value) for name, value in Session(model, CPU).run({"x": X}).items()}


def edited(model: rt.Model, edit: Callable[[onnx.GraphProto], object]) -> rt.Model:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    edit(proto.graph)
    return rt.Model(proto)


def chain() -> rt.Model:
    net = Net(x=("n", 4))
    return net.model(net("Tanh", net("Relu", net("Abs", "x", name="a"), name="b"), name="y"))


def test_nodes_are_brought_into_an_order_in_which_they_can_run() -> None:
    def turned(graph: onnx.GraphProto) -> None:
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(graph.node)]
        del graph.node[:]
        graph.node.extend(nodes)

    found, notes = tolerate(edited(chain(), turned))
    assert [node.output[0] for node in found.graph.node] == ["a", "b", "y"]
    assert notes == ["its nodes are not in an order in which they can run"]
    np.testing.assert_array_equal(run(found)["y"], run(chain())["y"])


def test_what_the_checker_asks_for_is_added() -> None:
    def bare(graph: onnx.GraphProto) -> None:
        graph.name = ""
        graph.output[0].ClearField("type")

    found, notes = tolerate(edited(chain(), bare))
    assert found.graph.name == "graph"
    assert found.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert notes == ["its graph has no name", "its output 'y' declares no type"]
    model = chain()
    assert tolerate(model) == (model, [])
    assert tolerate(model)[0] is model


def test_bfloat16_becomes_float32_with_the_same_values() -> None:
    net = Net()
    net.add_input("x", TensorProto.BFLOAT16, ["n", 4])
    weight = np.random.default_rng(1).normal(size=(4, 2)).astype(np.float32)
    net.weights.append(onnx.helper.make_tensor("w0", TensorProto.BFLOAT16, (4, 2), weight.ravel()))
    net("Cast", net("MatMul", "x", "w0"), to=TensorProto.BFLOAT16, name="y")
    model = net.model("y")
    assert holds_bfloat16(model)
    found = in_float32(model)
    assert not holds_bfloat16(found)
    assert [spec.dtype for spec in found.inputs] == [TensorProto.FLOAT]
    assert found.graph.node[1].attribute[0].i == TensorProto.FLOAT
    stored = found.value(found.initializers["w0"])
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, model.value(model.initializers["w0"]).astype(np.float32))
    np.testing.assert_allclose(stored, weight, rtol=2**-8)
    assert holds_bfloat16(model)  # which is as it was


def fused(simple: bool, bias: bool, wanted: bool) -> rt.Model:
    net = Net(x=("n", 4))
    name = "SkipSimplifiedLayerNormalization" if simple else "SkipLayerNormalization"
    other = net("MatMul", "x", net.weight(4, 4))
    operands = [other, "x", net.weight(4), *([] if simple else [net.weight(4)]), *([net.weight(4)] * bias)]
    outputs = ["normed", "", "", "sum"] if wanted else ["normed"]
    net.nodes.append(
        onnx.helper.make_node(name, operands, outputs, "skip", domain="com.microsoft", epsilon=1e-3)
    )
    return net.model(*(["normed", "sum"] if wanted else ["normed"]))


@pytest.mark.parametrize("simple", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("wanted", [False, True])
def test_a_fused_skip_norm_is_a_sum_and_a_norm_and_fused_again(
    simple: bool, bias: bool, wanted: bool
) -> None:
    model = fused(simple, bias, wanted)
    split, undo = split_skip_norms(model)
    assert undo is not None
    norm = "SimplifiedLayerNormalization" if simple else "LayerNormalization"
    assert [node.op_type for node in split.graph.node] == ["MatMul", "Add", *(["Add"] * bias), norm]
    before, after, again = run(model), run(split), run(undo.undo(split))
    assert before.keys() == after.keys() == again.keys()
    for key, values in before.items():
        np.testing.assert_allclose(after[key], values, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(again[key], values)
    assert undo.undo(split).graph.node[-1] == model.graph.node[-1]
    plain = chain()
    assert split_skip_norms(plain) == (plain, None)


def test_silent_channels_compute_what_fewer_channels_compute() -> None:
    net = Net(x=("n", 4))
    wide = net("Relu", net("Gemm", "x", net.weight(4, 6), net.weight(6)))
    model = net.model(net("Gemm", wide, net.weight(6, 2), net.weight(2), name="y"))
    (width,) = inner_widths(model).found
    kept = {width.name: np.array([0, 2, 5])}
    silent, narrow = silence_channels(model, kept), keep_channels(model, kept)
    np.testing.assert_allclose(run(silent)["y"], run(narrow)["y"], rtol=1e-5, atol=1e-6)
    assert np.abs(run(silent)["y"] - run(model)["y"]).max() > 0.1
    assert silent.initializers.keys() >= {"w0", "w1"}
    assert silence_channels(model, {}).sha256 == model.sha256

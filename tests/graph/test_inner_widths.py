"""Inner widths: where they are found, and that leaving out channels that nothing reads is exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

import redtest_onnx as rt
from redtest_onnx.errors import InputError
from redtest_onnx.graph.channel_edits import keep_channels
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.inner_width import InnerWidth
from redtest_onnx.graph.inner_widths import inner_widths
from redtest_onnx.graph.weights import change_operands
from redtest_onnx.runtime.session import Session
from tests.nets import Net


def basic_block() -> rt.Model:
    net = Net(image=("n", 3, 8, 8))
    x = net("Relu", net.conv("image", 3, 4))
    inner = net.conv(x, 4, 6)
    statistics = [net.weight(6), net.weight(6), net.weight(6), net.store(np.full(6, 0.5))]
    inner = net("Relu", net("BatchNormalization", inner, *statistics))
    y = net("Add", x, net.conv(inner, 6, 4))
    return net.model(net("Relu", y, name="out"))


def inverted_bottleneck() -> rt.Model:
    net = Net(image=("n", 4, 8, 8))
    expanded = net("Conv", "image", net.weight(6, 4, 1, 1), net.weight(6))
    expanded = net("Clip", expanded, net.store(np.float32(0)), net.store(np.float32(6)))
    deep = net("Conv", expanded, net.weight(6, 1, 3, 3), net.weight(6), group=6, pads=[1, 1, 1, 1])
    deep = net("PRelu", deep, net.weight(6, 1, 1))
    narrow = net("Conv", deep, net.weight(4, 6, 1, 1))
    return net.model(net("Add", "image", narrow, name="out"))


def copied_biases() -> rt.Model:
    net = Net(image=("n", 4, 8, 8))
    bias = net.weight(6)
    first = net("Identity", bias)
    expanded = net("Conv", "image", net.weight(6, 4, 1, 1), first)
    second = net("Identity", first)
    deep = net("Conv", expanded, net.weight(6, 1, 3, 3), second, group=6, pads=[1, 1, 1, 1])
    return net.model(net("Conv", net("Relu", deep), net.weight(4, 6, 1, 1), name="out"))


def squeeze_and_excite() -> rt.Model:
    net = Net(image=("n", 3, 8, 8))
    x = net("Relu", net.conv("image", 3, 6))
    gate = net("GlobalAveragePool", x)
    gate = net("Relu", net("Conv", gate, net.weight(5, 6, 1, 1)))
    gate = net("Sigmoid", net("Conv", gate, net.weight(6, 5, 1, 1), net.weight(6)))
    return net.model(net("Conv", net("Mul", x, gate), net.weight(2, 6, 1, 1), name="out"))


def mlp() -> rt.Model:
    net = Net(tokens=("n", 5, 4))
    hidden = net("Add", net("MatMul", "tokens", net.weight(4, 8)), net.weight(8))
    # GELU as exporters write it out.
    error = net("Erf", net("Div", hidden, net.store(np.float32(1.4142))))
    hidden = net("Mul", net("Mul", hidden, net("Add", error, net.store(np.float32(1)))), net.store([0.5]))
    y = net("Add", net("MatMul", hidden, net.weight(8, 4)), net.weight(4))
    return net.model(net("Add", "tokens", y, name="out"))


def gated_mlp() -> rt.Model:
    net = Net(tokens=("n", 5, 4))
    gate, up = (net("MatMul", "tokens", net.weight(4, 8)) for _ in range(2))
    hidden = net("Mul", net("Mul", gate, net("Sigmoid", gate)), up)
    return net.model(net("Add", "tokens", net("MatMul", hidden, net.weight(8, 4)), name="out"))


def channels_last() -> rt.Model:
    net = Net(image=("n", 8, 8, 3))
    x = net.conv(net("Transpose", "image", perm=[0, 3, 1, 2]), 3, 6)
    x = net("Add", net("Transpose", x, perm=[0, 2, 3, 1]), net.weight(6))
    x = net("Transpose", net("Relu", x), perm=[0, 3, 1, 2])
    return net.model(net("Conv", x, net.weight(2, 6, 1, 1), name="out"))


def flattened(how: str) -> rt.Model:
    net = Net(image=("n", 3, 8, 8))
    x = net("MaxPool", net("Relu", net.conv("image", 3, 6)), kernel_shape=[2, 2], strides=[4, 4])
    shape = net.store([-1, 24], np.int64)
    x = net("Flatten", x) if how == "Flatten" else net("Reshape", x, shape)
    return net.model(net("Gemm", x, net.weight(5, 24), net.weight(5), name="out", transB=1))


def pooled() -> rt.Model:
    net = Net(image=("n", 3, 8, 8))
    x = net("ReduceMean", net("Relu", net.conv("image", 3, 6)), axes=[2, 3], keepdims=0)
    return net.model(net("MatMul", x, net.weight(6, 2), name="out"))


MODELS: dict[str, tuple[Callable[[], rt.Model], int, int]] = {
    # model, producers and consumers of its first inner width
    "basic block": (basic_block, 1, 1),
    "depthwise": (inverted_bottleneck, 1, 1),
    "copied biases": (copied_biases, 1, 1),
    "squeeze and excite": (squeeze_and_excite, 2, 2),
    "MLP": (mlp, 1, 1),
    "gated MLP": (gated_mlp, 2, 1),
    "channels last": (channels_last, 1, 1),
    "Flatten": (lambda: flattened("Flatten"), 1, 1),
    "Reshape": (lambda: flattened("Reshape"), 1, 1),
    "pooled": (pooled, 1, 1),
}


def unread(model: rt.Model, width: InnerWidth, kept: np.ndarray) -> rt.Model:
    """The model with zeros where consumers would read channels that go."""
    changes = {}
    for operand, block in width.weights:
        name = model.graph.node[operand.node].input[operand.position]
        values = model.value(model.initializers[name]).copy()
        places = np.ones(width.channels * block, np.bool_)
        places[(kept[:, None] * block + np.arange(block)).reshape(-1)] = False
        np.moveaxis(values, operand.axis, 0)[places] = 0
        changes[operand.node, name] = values
    return change_operands(model, changes)


@pytest.mark.parametrize("name", MODELS)
def test_is_exact(name: str) -> None:
    build, producers, consumers = MODELS[name]
    model = build()
    width = inner_widths(model).found[0]
    assert (len(width.producers), len(width.consumers)) == (producers, consumers)
    before = model.serialised()
    kept = np.array([0, 2, 3])
    smaller = keep_channels(model, {width.name: kept})
    assert model.serialised() == before
    onnx.checker.check_model(smaller.proto, full_check=True)
    sizes = [3 if size == "n" else size for size in model.inputs[0].shape]
    feeds = {model.inputs[0].name: np.random.default_rng(0).normal(size=sizes).astype(np.float32)}
    expected = Session(unread(model, width, kept)).run(feeds)["out"]
    assert expected.std() > 0.1
    np.testing.assert_allclose(Session(smaller).run(feeds)["out"], expected, rtol=1e-4, atol=1e-4)
    (by_reference,) = ReferenceEvaluator(smaller.proto).run(["out"], feeds)
    np.testing.assert_allclose(by_reference, expected, rtol=1e-4, atol=1e-4)
    assert inner_widths(smaller).found[0].channels == 3
    gone = sum(np.prod(t.dims) for t in model.graph.initializer) - sum(
        np.prod(t.dims) for t in smaller.graph.initializer
    )
    assert gone > 0


def test_several_widths_of_a_chain() -> None:
    net = Net(image=("n", 3, 8, 8))
    x = net("Relu", net.conv("image", 3, 6))
    x = net("Relu", net.conv(x, 6, 5))
    model = net.model(net.conv(x, 5, 2, name="out"))
    first, second = inner_widths(model).found
    smaller = keep_channels(model, {first.name: np.array([1, 4]), second.name: np.array([0, 1, 3])})
    assert [list(t.dims) for t in smaller.graph.initializer] == [[2, 3, 3, 3], [3, 2, 3, 3], [2, 3, 3, 3]]
    assert keep_channels(model, {first.name: np.arange(6)}) is model


def test_values_that_others_read_stay_theirs() -> None:
    net = Net(image=("n", 3, 8, 8))
    slope = net.weight(6, 1, 1)
    x = net("PRelu", net.conv("image", 3, 6), slope)
    x = net("Relu", net.conv(x, 6, 6))
    model = net.model(net("PRelu", net.conv(x, 6, 6), slope, name="out"))
    smaller = keep_channels(model, {inner_widths(model).found[0].name: np.array([0, 5])})
    onnx.checker.check_model(smaller.proto, full_check=True)
    assert [
        list(smaller.initializers[n.input[1]].dims) for n in smaller.graph.node if n.op_type == "PRelu"
    ] == [
        [2, 1, 1],
        [6, 1, 1],
    ]


def test_copies_that_no_node_reads_any_more_are_dropped() -> None:
    model = copied_biases()
    name = inner_widths(model).found[0].name
    smaller = keep_channels(model, {name: np.array([1, 2])})
    assert [node.op_type for node in smaller.graph.node] == ["Conv", "Conv", "Relu", "Conv"]
    assert sorted(list(t.dims) for t in smaller.graph.initializer if len(t.dims) == 1) == [[2], [2]]
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.output.add().CopyFrom(helper.make_tensor_value_info("Identity0", 1, [6]))
    smaller = keep_channels(rt.Model(proto), {name: np.array([1, 2])})
    assert [node.output[0] for node in smaller.graph.node if node.op_type == "Identity"] == ["Identity0"]


def refused_models() -> dict[str, tuple[rt.Model, str]]:
    found = {}
    net = Net(image=("n", 3, 8, 8))
    x = net("Relu", net.conv("image", 3, 6))
    found["shortcut"] = net.model(net.conv(net("Add", x, net.conv(x, 6, 6)), 6, 2, name="out")), "together"
    net = Net(tokens=("n", 5, 4))
    shared = net.weight(4, 4)
    x = net("Relu", net("MatMul", "tokens", shared))
    found["shared weights"] = net.model(net("MatMul", x, shared, name="out")), "other nodes read the weights"
    net = Net(tokens=("n", 5, 4))
    x = net("MatMul", "tokens", net.weight(4, 8), name="seen")
    found["output"] = net.model("seen", net("MatMul", x, net.weight(8, 4), name="out")), "is an output"
    net = Net(tokens=("n", 5, 4))
    x = net("Softmax", net("MatMul", "tokens", net.weight(4, 8)))
    found["softmax"] = net.model(net("MatMul", x, net.weight(8, 4), name="out")), "on each channel by itself"
    net = Net(tokens=("n", 5, 4))
    weight = net("DequantizeLinear", net.store(np.ones((4, 8)), np.int8), net.store(np.float32(0.1)))
    x = net("Relu", net("MatMul", "tokens", weight))
    found["quantised"] = net.model(net("MatMul", x, net.weight(8, 4), name="out")), "quantised"
    net = Net(image=("n", 4, 8, 8))
    x = net("Relu", net("Conv", "image", net.weight(6, 4, 1, 1)))
    found["groups"] = net.model(net("Conv", x, net.weight(4, 3, 1, 1), name="out", group=2)), "grouped"
    net = Net(image=("n", 3, 8, 8))
    x = net("Relu", net.conv("image", 3, 6))
    net.nodes.append(helper.make_node("Dropout", [x], ["kept", "mask"], name="drop"))
    seen = net("Cast", "mask", name="seen", to=1)
    found["mask"] = net.model(seen, net.conv("kept", 6, 2, name="out")), "several results"
    net = Net(image=("n", 3, 8, 8))
    x = net("Transpose", net.conv("image", 3, 6), perm=[0, 2, 1, 3])
    x = net("MaxPool", x, kernel_shape=[2, 2])
    x = net("Transpose", x, perm=[0, 2, 1, 3])
    found["pool over channels"] = net.model(net.conv(x, 5, 2, name="out")), "on each channel by itself"
    net = Net(image=("n", 3, 8, 8), mask=("n", 6, 8, 8))
    x = net("Mul", net.conv("image", 3, 6), "mask")
    found["unknown operand"] = net.model(net.conv(x, 6, 2, name="out")), "not stored"
    return found


@pytest.mark.parametrize("name", refused_models())
def test_refuses_with_a_reason(name: str) -> None:
    model, reason = refused_models()[name]
    widths = inner_widths(model)
    assert not widths.found
    first = min(index_of(model).weighted)
    assert reason in widths.refused[model.graph.node[first].name]


@pytest.mark.parametrize("kept", [[], [2, 1], [0, 6], [1, 1]])
def test_refuses_channels_that_are_none(kept: list[int]) -> None:
    model = basic_block()
    with pytest.raises(InputError, match="in rising order"):
        keep_channels(model, {inner_widths(model).found[0].name: np.array(kept, np.int64)})


def test_refuses_an_unknown_name() -> None:
    with pytest.raises(InputError, match="no inner width"):
        keep_channels(basic_block(), {"elsewhere": np.array([0])})

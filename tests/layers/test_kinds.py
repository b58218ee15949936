"""What layers are called, where channels are, which adapters there are; all parameters are accounted for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

import redtest_onnx as rt
from redtest_onnx.graph.cost import count_macs, count_parameters, model_cost
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.layers.adaptation import adaptable, windows
from redtest_onnx.layers.elsewhere import elsewhere
from redtest_onnx.layers.layer import find_layers
from redtest_onnx.layers.layout import channel_axis
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.runtime.session import RunOptions, Session
from redtest_onnx.runtime.workbench import Workbench
from tests.nets import Net

ONE = RunOptions(threads=1)
MODELS = Path(__file__).parents[2] / "models"


def head(net: Net, x: str, width: int) -> str:
    pooled = net("Flatten", net("GlobalAveragePool", x))
    return net("MatMul", pooled, net.weight(width, 3), name="y")


def test_a_convolution_with_a_gate_is_a_convolution() -> None:
    net = Net(x=[1, 4, 8, 8])
    first = net("Relu", net.conv("x", 4, 4))
    made = net.conv(first, 4, 4)
    second = net("Mul", made, net("Sigmoid", made))
    head(net, second, 4)
    assert [layer.kind for layer in net.layers("y").values()] == ["Conv", "Conv"]


def test_what_neighbours_in_a_graph_send_is_message_passing() -> None:
    net = Net(opset=18, x=["nodes", 8])
    net.add_input("edges", TensorProto.INT64, [2, "links"])
    ends = [net("Gather", "edges", net.store(k, np.int64), axis=0) for k in (0, 1)]
    h = net("Relu", net("MatMul", "x", net.weight(8, 8)))
    sent = net("Relu", net("MatMul", net("Gather", h, ends[0]), net.weight(8, 8)))
    places = net("Expand", net("Unsqueeze", ends[1], net.store([1], np.int64)), net("Shape", sent))
    got = net("ScatterElements", net("MatMul", h, net.weight(8, 8)), places, sent, axis=0, reduction="add")
    net("MatMul", net("Relu", got), net.weight(8, 3), name="y")
    model = net.model("y")
    layers = Workbench(model, rt.open_data(None, model), ONE).layers()
    assert [layer.kind for layer in layers] == ["MatMul", "message passing"]


def test_a_large_block_is_no_feed_forward() -> None:
    net = Net(x=[1, 8])
    first = net("Relu", net("MatMul", "x", net.weight(8, 8)))
    ways = []
    for _ in range(3):
        a = net("Tanh", net("MatMul", first, net.weight(8, 8)))
        ways.append(net("Mul", a, net("Erf", net("MatMul", a, net.weight(8, 8)))))
    mixed = net("Sum", first, *ways)
    net("MatMul", net("Relu", mixed), net.weight(8, 3), name="y")
    assert [layer.kind for layer in net.layers("y").values()] == ["MatMul", "block"]


def cell(net: Net, x: str, h: str, weights: tuple[str, str], width: int) -> str:
    """One step of a gated cell, spelt out."""
    gates = net("Add", net("MatMul", x, weights[0]), net("MatMul", h, weights[1]))
    parts = net.store([width] * 2, np.int64)
    net("Split", gates, parts, outputs=2, axis=-1)
    gate, value = net.nodes[-1].output
    return net("Mul", net("Sigmoid", gate), net("Tanh", value))


def test_an_unrolled_cell_is_recurrent() -> None:
    net = Net(x=[1, 8])
    first = net("Relu", net("MatMul", "x", net.weight(8, 8)))
    weights, h = (net.weight(8, 16), net.weight(8, 16)), first
    for _ in range(3):
        h = cell(net, first, h, weights, 8)
    net("MatMul", net("Relu", h), net.weight(8, 3), name="y")
    kinds = [layer.kind for layer in net.layers("y").values()]
    assert kinds[0] == "MatMul"
    assert set(kinds[1:]) == {"recurrent block"}


def test_tables_that_are_added_are_an_embedding() -> None:
    net = Net()
    net.add_input("ids", TensorProto.INT64, [1, 5])
    summed = net("Add", net("Gather", net.weight(10, 8), "ids"), net("Gather", net.weight(3, 8), "ids"))
    net("MatMul", net("Relu", net("MatMul", summed, net.weight(8, 8))), net.weight(8, 3), name="y")
    assert next(iter(net.layers("y").values())).kind == "embedding"


def channels_last(first: int = 8, side: int = 8, stride: int = 1) -> tuple[Net, str, str]:
    """Residual blocks [N, H, W, C], as TensorFlow's converters write them; entry and exit of the second."""
    net = Net(x=[1, side, side, 3])

    def conv(x: str, inputs: int, outputs: int, step: int = 1) -> str:
        front = net("Transpose", x, perm=[0, 3, 1, 2])
        return net("Transpose", net.conv(front, inputs, outputs, stride=step), perm=[0, 2, 3, 1])

    def block(x: str, inputs: int, outputs: int, step: int = 1) -> str:
        inner = conv(net("Relu", conv(x, inputs, outputs, step)), outputs, outputs)
        return net("Relu", net("Add", inner, conv(x, inputs, outputs, step)))

    entry = block("x", 3, first)
    exit_ = block(entry, first, 16, stride)
    pooled = net("ReduceMean", block(exit_, 16, 16), axes=[1, 2], keepdims=0)
    net("MatMul", pooled, net.weight(16, 3), name="y")
    return net, entry, exit_


@pytest.mark.parametrize(("stride", "side"), [(1, 8), (2, 8), (2, 15)])
def test_blocks_with_their_channels_behind_get_an_adapter(stride: int, side: int) -> None:
    net, entry, exit_ = channels_last(side=side, stride=stride)
    index = GraphIndex(net.model("y").graph)
    assert channel_axis(index, entry, 4) == channel_axis(index, exit_, 4) == 3
    model = net.model("y")
    bench = Workbench(model, rt.open_data(None, model), ONE)
    layer = next(layer for layer in bench.layers() if layer.exit == exit_)
    assert layer.action == "adapter"
    assert layer.channels_last
    pruned = apply_plan(bench, Plan("test", model.sha256, (Step.of(layer),)))
    assert Session(pruned, ONE).run(bench.sample)["y"].shape == (1, 3)
    assert count_parameters(GraphIndex(pruned.graph)) < count_parameters(index)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_a_window_takes_one_size_to_the_other(a: int, b: int) -> None:
    found = windows((a,), (b,))
    if found is None:
        assert a % b or a < b  # where the sizes divide there is one
        return
    [window] = found
    assert (a - window.size) // window.stride + 1 == b
    assert window.size <= a
    if a % b == 0:
        assert window.stride == window.size == a // b


@pytest.mark.parametrize(("side", "after"), [(15, 8), (9, 5), (7, 4), (17, 9)])
def test_odd_sizes_take_a_strided_operator(side: int, after: int) -> None:
    net = Net(x=[1, 3, side, side])
    first = net("Relu", net.conv("x", 3, 8))
    second = net("Relu", net.conv(first, 8, 16, stride=2))
    head(net, net("Relu", net.conv(second, 16, 16)), 16)
    model = net.model("y")
    bench = Workbench(model, rt.open_data(None, model), ONE)
    layer = bench.layers()[1]
    assert layer.shape == (1, 16, after, after)
    assert layer.action == "adapter"
    pruned = apply_plan(bench, Plan("test", model.sha256, (Step.of(layer),)))
    assert Session(pruned, ONE).run(bench.sample)["y"].shape == (1, 3)
    parameters = count_parameters(bench.index) - count_parameters(GraphIndex(pruned.graph))
    assert parameters == layer.parameters - layer.added_parameters


def test_growing_and_other_ranks_take_none() -> None:
    assert not adaptable((1, 4, 4, 4), (1, 4, 8, 8), channels_first=True)
    assert not adaptable((1, 4, 4), (1, 16), channels_first=False)


def measured_outside() -> Net:
    """The sizes of a block's inner tensor are asked for by what lies behind the block."""
    net = Net(x=["N", 6, 8])
    entry = net("MatMul", "x", net.weight(8, 8), name="entry")
    inner = net("Relu", net("MatMul", entry, net.weight(8, 8)), name="inner")
    exit_ = net("Add", net("MatMul", inner, net.weight(8, 8)), entry, name="exit")
    last = net("Relu", net("MatMul", exit_, net.weight(8, 8)))
    net("MatMul", net("Reshape", last, net("Shape", inner)), net.weight(8, 3), name="y")
    return net


def test_a_tensor_whose_sizes_alone_are_read_does_not_hold_a_layer() -> None:
    model = measured_outside().model("y")
    bench = Workbench(model, rt.open_data(None, model), ONE)
    layer = next(layer for layer in bench.layers() if layer.exit == "exit")
    assert layer.removable, layer.reason
    pruned = apply_plan(bench, Plan("test", model.sha256, (Step.of(layer),)))
    feeds = bench.leading(3)
    values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    entry = feeds["x"] @ values["w0"]
    expected = np.maximum(entry @ values["w3"], 0) @ values["w4"]
    np.testing.assert_allclose(Session(pruned, ONE).run(feeds)["y"], expected, rtol=1e-4, atol=1e-5)


def neck() -> Net:
    """A stem, and a large block whose three ways meet in one sum at the end, as detectors have them."""
    net = Net(x=[1, 4, 8, 8])
    stem = net("Relu", net.conv("x", 4, 4))
    ways = []
    for _ in range(3):
        x = stem
        for _ in range(4):
            x = net("Relu", net.conv(x, 4, 4))
        ways.append(x)
    head(net, net("Concat", *ways, axis=1), 12)
    return net


def test_a_block_that_holds_most_of_the_network_is_looked_into() -> None:
    layers = neck().layers("y")
    assert len(layers) == 13
    total = sum(layer.parameters for layer in layers.values())
    assert max(layer.parameters for layer in layers.values()) < total / 5


@pytest.mark.parametrize("name", ["resnet", "vgg", "vit"])
def test_all_parameters_are_accounted_for(name: str) -> None:
    model = rt.load(MODELS / f"{name}_digits.onnx")
    bench = Workbench(model, rt.open_data(None, model), ONE)
    others = elsewhere(bench.index, bench.layers(), bench.cost)
    assert sum(layer.parameters for layer in bench.layers()) + others.parameters == bench.cost.parameters
    assert 0 <= others.shared <= others.parameters


def test_shared_weights_are_shown_as_shared() -> None:
    net = Net(x=[1, 8])
    shared, x = net.weight(8, 8), "x"
    x = net("Relu", net("MatMul", x, net.weight(8, 8)))
    for _ in range(3):
        x = net("Relu", net("MatMul", x, shared))
    net("MatMul", x, net.weight(8, 3), name="y")
    index, shapes = net.measured("y")
    layers = find_layers(index, shapes)
    assert [layer.parameters for layer in layers] == [64, 0, 0, 0]
    assert [layer.shared_parameters for layer in layers] == [0, 64, 64, 64]
    others = elsewhere(index, layers, model_cost(index, shapes))
    assert (others.parameters, others.shared, others.shared_names) == (64 + 24, 64, (shared,))
    assert count_macs(index, shapes) == 4 * 64 + 24

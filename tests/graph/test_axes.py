"""What operators tell of open axes: sizes that weights fix, equal axes, and which axis holds the samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto

import redtest_onnx as rt
from redtest_onnx.graph.signature import batch_axes, fixed_batch, plan_inputs, takes_one_sample
from tests.nets import Net

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def shapes(model: rt.Model, batch: int = 2) -> dict[str, tuple[int, ...]]:
    return {plan.name: plan.shape for plan in plan_inputs(model, batch)}


def gru(net: Net, x: str, inputs: int, hidden: int = 8, op: str = "GRU") -> str:
    gates = {"GRU": 3, "LSTM": 4, "RNN": 1}[op]
    weights = [net.weight(1, gates * hidden, inputs), net.weight(1, gates * hidden, hidden)]
    return net(op, x, *weights, outputs=2, hidden_size=hidden)


def matmul(net: Net) -> str:
    return net("MatMul", "x", net.weight(180, 4))


def gemm(net: Net) -> str:
    return net("Gemm", "x", net.weight(4, 180), transB=1)


def behind_elementwise(net: Net) -> str:
    scaled = net("Div", net("Sub", "x", net.weight(1, 180)), net.store(2.0))
    return net("MatMul", net("Relu", scaled), net.weight(180, 4))


def behind_normalisation(net: Net) -> str:
    return net("LayerNormalization", "x", net.weight(180), net.weight(180))


def einsum(net: Net) -> str:
    return net("Einsum", "x", net.weight(180, 4), equation="nd,dk->nk")


def behind_constant(net: Net) -> str:
    weight = net("Transpose", net.weight(4, 180), perm=[1, 0])
    return net("MatMul", "x", net("Identity", weight))


@pytest.mark.parametrize(
    "build", [matmul, gemm, behind_elementwise, behind_normalisation, einsum, behind_constant]
)
def test_a_feature_axis_takes_the_size_of_its_weights(build: Callable[[Net], str]) -> None:
    net = Net(x=["N", "features"])
    build(net)
    assert shapes(net.model(net.nodes[-1].output[0])) == {"x": (2, 180)}


@pytest.mark.parametrize("op", ["GRU", "LSTM", "RNN"])
def test_steps_first_without_samples_is_one_sample_a_run(op: str) -> None:
    net = Net(x=["frames", "features"])
    made = gru(net, net("Unsqueeze", "x", net.store([1], np.int64)), 180, op=op)
    model = net.model(made)
    assert shapes(model) == {"x": (16, 180)}
    assert batch_axes(model) == {"x": None}
    assert fixed_batch(model) == 1
    assert takes_one_sample(model)


def test_channels_of_a_convolution_with_groups() -> None:
    net = Net(x=["N", "C", "H", "W"])
    net("Conv", "x", net.weight(8, 3, 3, 3), group=2)
    assert shapes(net.model("Conv0")) == {"x": (2, 6, 64, 64)}


def test_equal_symbols_and_joined_axes_get_one_size() -> None:
    net = Net(a=["N", "T", 8], b=["M", "S", 8])
    net("MatMul", net("Add", "a", "b"), net.weight(8, 4))
    plans = {plan.name: plan for plan in plan_inputs(net.model("MatMul1"), 3)}
    assert plans["a"].shape == plans["b"].shape == (3, 16, 8)


def graph_network() -> Net:
    net = Net(x=["N", 8], weight=["E", 1])
    net.add_input("edges", INT, [2, "E"])
    hidden = net("Relu", net("MatMul", "x", net.weight(8, 8)))
    sources = net("Gather", "edges", net.store(0, np.int64), axis=0)
    messages = net("Mul", net("Gather", hidden, sources, axis=0), "weight")
    net("MatMul", messages, net.weight(8, 8), name="y")
    return net


def test_a_symbol_on_another_axis_is_no_batch() -> None:
    model = graph_network().model("y")
    assert takes_one_sample(model)
    found = shapes(model)
    assert found["edges"][1] == found["weight"][0]


def test_sizes_are_used_as_given_the_first_included() -> None:
    model = graph_network().model("y").with_sizes({"x": (10, 8), "edges": (2, 30), "weight": (30, 1)})
    assert shapes(model) == {"x": (10, 8), "edges": (2, 30), "weight": (30, 1)}
    assert model.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"  # the file stays


def test_one_given_symbol_sizes_the_others() -> None:
    model = graph_network().model("y").with_sizes({"edges": (2, 30)})
    assert shapes(model)["weight"] == (30, 1)


def test_a_first_size_of_one_leaves_the_batch_open_and_others_fix_it() -> None:
    net = Net(x=["N", 3, "H", "W"])
    net.conv("x", 3, 4)
    model = net.model("Conv0")
    assert fixed_batch(model.with_sizes({"x": (1, 3, 32, 32)})) is None
    assert fixed_batch(model.with_sizes({"x": (5, 3, 32, 32)})) == 5


@pytest.mark.parametrize(
    ("name", "sizes"), [("z", (1, 3, 8, 8)), ("x", (1, 4, 8, 8)), ("x", (1, 3, 8)), ("x", (1, 3, -8, 8))]
)
def test_given_sizes_that_do_not_fit_are_refused(name: str, sizes: tuple[int, ...]) -> None:
    net = Net(x=["N", 3, "H", "W"])
    net.conv("x", 3, 4)
    with pytest.raises(rt.InputError):
        net.model("Conv0").with_sizes({name: sizes})


@pytest.mark.parametrize(
    ("key", "value", "size"),
    [
        ("imgsz", "[320, 320]", (320, 320)),
        ("imgsz", "416", (416, 416)),
        ("imgsz", "[256, 192]", (256, 192)),
        (
            "preprocessor",
            '{"crop_size": {"height": 224, "width": 160}, "size": {"shortest_edge": 256}}',
            (224, 160),
        ),
        ("config", '{"size": {"shortest_edge": 288}}', (288, 288)),
        ("input_size", "(3, 96, 128)", (96, 128)),
        ("size", "large", (64, 64)),
        ("stride", "32", (64, 64)),
    ],
)
def test_image_sizes_from_metadata(key: str, value: str, size: tuple[int, int]) -> None:
    net = Net(x=["N", 3, "H", "W"])
    net.conv("x", 3, 4)
    model = net.model("Conv0")
    model.proto.metadata_props.add(key=key, value=value)
    plan = plan_inputs(model, 1)[0]
    assert plan.shape == (1, 3, *size)
    assert (plan.chosen_axes == ()) == (size != (64, 64))

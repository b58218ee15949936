"""What operators tell of open axes: sizes that weights fix, equal axes, and which axis holds the samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto

import redtest_onnx as rt
from redtest_onnx.graph.signature import (
    batch_axes,
    fixed_batch,
    plan_inputs,
    state_inputs,
    takes_one_sample,
)
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


def vector_product(net: Net) -> str:
    return net("MatMul", "x", net.weight(20, 8))


def turned_product(net: Net) -> str:
    return net("MatMul", net.weight(8, 20), "x")


def scaled_in_front(net: Net) -> str:
    return net("MatMul", net("Mul", net.weight(20), "x"), net.weight(20, 8))


def as_one_row(net: Net) -> str:
    row = net("Reshape", "x", net.store([1, 20], np.int64))
    return net("Gemm", row, net.weight(20, 8))


def as_one_row_of_what_is_left(net: Net) -> str:
    return net("MatMul", net("Reshape", "x", net.store([1, -1], np.int64)), net.weight(20, 8))


def lifted(net: Net) -> str:
    return net("Gemm", net("Unsqueeze", "x", net.store([0], np.int64)), net.weight(8, 20), transB=1)


def flattened(net: Net) -> str:
    return net("MatMul", net("Flatten", "x", axis=0), net.weight(20, 8))


def summed(net: Net) -> str:
    return net("Einsum", "x", net.weight(20, 8), equation="d,dk->k")


def normalised(net: Net) -> str:
    return net("MatMul", behind_scale(net), net.weight(20, 8))


def behind_scale(net: Net) -> str:
    return net("LayerNormalization", net("Sub", "x", net.weight(20)), net.weight(20), axis=-1)


def step_of_a_cell(net: Net) -> str:
    return gru(net, net("Unsqueeze", "x", net.store([0, 1], np.int64)), 20)


def as_a_signal(net: Net) -> str:
    return net("Conv", net("Unsqueeze", "x", net.store([0, 1], np.int64)), net.weight(4, 1, 3))


VECTORS = [
    *(vector_product, turned_product, scaled_in_front, as_one_row, as_one_row_of_what_is_left, lifted),
    *(flattened, summed, normalised, step_of_a_cell, as_a_signal),
]


@pytest.mark.parametrize("build", VECTORS)
def test_one_vector_whose_values_are_summed_over_is_one_sample_a_run(build: Callable[[Net], str]) -> None:
    net = Net(x=[20])
    model = net.model(build(net))
    assert takes_one_sample(model)
    assert fixed_batch(model) == 1
    assert shapes(model) == {"x": (20,)}


def test_so_is_one_whose_size_only_its_weights_tell() -> None:
    net = Net(x=["features"])
    model = net.model(vector_product(net))
    assert takes_one_sample(model)
    assert shapes(model) == {"x": (20,)}


def test_one_image_without_an_axis_of_samples_is_one_sample_a_run() -> None:
    net = Net(x=[3, 8, 8])
    model = net.model(net.conv(net("Unsqueeze", "x", net.store([0], np.int64)), 3, 4))
    assert takes_one_sample(model)
    assert shapes(model) == {"x": (3, 8, 8)}


@pytest.mark.parametrize("sizes", [[8], [1, 8], [1, 1, 8]])
def test_a_state_beside_one_vector_holds_no_samples_either(sizes: list[int]) -> None:
    net = Net(x=[20], h=sizes)
    row = net("Reshape", "h", net.store([8], np.int64))
    moved = net("Add", vector_product(net), net("MatMul", row, net.weight(8, 8)))
    net("Reshape", net("Tanh", moved), net.store(sizes, np.int64), name="h_next")
    model = net.model("h_next")
    assert state_inputs(model) == {"h"}
    assert takes_one_sample(model)
    assert batch_axes(model) == {"x": None, "h": None}


@pytest.mark.parametrize("batch", ["N", 4])
def test_a_vector_beside_samples_holds_a_value_of_each(batch: int | str) -> None:
    net = Net(x=[batch, 16, 8], weights=[batch])
    net.add_input("lengths", INT, [batch])
    net.add_input("ids", INT, [batch])
    net.add_input("mask", TensorProto.BOOL, [batch])
    hidden = net("MatMul", "x", net.weight(8, 8))
    last = net("Gather", net.weight(30, 8), "ids")
    found = net("Add", net("ReduceMean", hidden, axes=[1], keepdims=0), last)
    for name in ("weights", "lengths", "mask"):
        column = net("Unsqueeze", net("Cast", name, to=FLOAT), net.store([1], np.int64))
        found = net("Mul", found, column)
    model = net.model(found)
    assert batch_axes(model) == {"x": 0, "weights": 0, "lengths": 0, "ids": 0, "mask": 0}
    assert fixed_batch(model) == (None if batch == "N" else 4)
    assert not takes_one_sample(model)


@pytest.mark.parametrize("size", ["N", 5])
def test_a_vector_of_one_number_per_sample_holds_samples(size: int | str) -> None:
    net = Net(x=[size])
    column = net("Unsqueeze", "x", net.store([1], np.int64))
    model = net.model(net("MatMul", column, net.weight(1, 8)))
    assert batch_axes(model) == {"x": 0}
    assert fixed_batch(model) == (None if size == "N" else 5)


def test_ids_of_samples_stay_samples() -> None:
    net = Net()
    net.add_input("ids", INT, [6])
    model = net.model(net("MatMul", net("Gather", net.weight(30, 8), "ids"), net.weight(8, 3)))
    assert batch_axes(model) == {"ids": 0}
    assert fixed_batch(model) == 6


def test_a_fixed_batch_stays_one_where_rows_are_as_many_as_columns() -> None:
    net = Net(x=[8, 8])
    model = net.model(net("MatMul", net("Reshape", "x", net.store([8, 8], np.int64)), net.weight(8, 8)))
    assert batch_axes(model) == {"x": 0}
    assert fixed_batch(model) == 8


def test_an_open_axis_that_is_summed_over_keeps_its_meaning() -> None:
    net = Net(x=["N", 8], y=["N", 4])
    model = net.model(net("MatMul", net("Transpose", "x", perm=[1, 0]), "y"))
    assert batch_axes(model) == {"x": 0, "y": 0}
    assert fixed_batch(model) is None


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

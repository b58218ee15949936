"""A neuron is what makes one output: setting its row to zero silences exactly that output."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.graph.weights import change_operands
from redtest_onnx.runtime.session import Session
from redtest_onnx.weight_sparsity.weights import find_weights


def single(op: str, data: list[int], weight: list[int], **attributes: Any) -> rt.Model:
    net = Net(x=data)
    return net.model(net(op, "x", net.weight(*weight), **attributes))


CASES = {
    "Conv": (single("Conv", [1, 4, 5, 5], [6, 4, 3, 3]), 6, 1),
    "Conv, grouped": (single("Conv", [1, 4, 5, 5], [6, 2, 3, 3], group=2), 6, 1),
    "Conv, 1-D": (single("Conv", [1, 4, 9], [5, 4, 3]), 5, 1),
    "ConvTranspose": (single("ConvTranspose", [1, 4, 5, 5], [4, 3, 2, 2]), 3, 1),
    "ConvTranspose, grouped": (single("ConvTranspose", [1, 4, 5, 5], [4, 3, 2, 2], group=2), 6, 1),
    "Gemm": (single("Gemm", [2, 4], [4, 3]), 3, 1),
    "Gemm, transB": (single("Gemm", [2, 4], [3, 4], transB=1), 3, 1),
    "MatMul": (single("MatMul", [2, 4], [4, 3]), 3, 1),
    "Einsum": (single("Einsum", [2, 4], [3, 4], equation="bi,oi->bo"), 3, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_a_row_is_an_output_channel(name: str) -> None:
    model, count, axis = CASES[name]
    (weight,), skipped = find_weights(model)
    assert not skipped
    assert weight.layout.count == count
    feeds = {
        spec.name: np.random.default_rng(0).normal(size=spec.shape).astype(np.float32)
        for spec in model.inputs
    }
    for neuron in (0, count - 1):
        rows = weight.rows(model).copy()
        rows[neuron] = 0
        values = weight.layout.restore(rows, weight.tensor.dims)
        silenced = change_operands(model, {(0, weight.name): values})
        (out,) = Session(silenced).run(feeds).values()
        silent = np.flatnonzero(~np.moveaxis(out, axis, 0).reshape(out.shape[axis], -1).any(axis=1))
        assert silent.tolist() == [neuron]


@pytest.mark.parametrize("name", CASES)
def test_rows_can_be_put_back(name: str) -> None:
    model = CASES[name][0]
    (weight,), _ = find_weights(model)
    restored = weight.layout.restore(weight.rows(model), weight.tensor.dims)
    np.testing.assert_array_equal(restored, weight.values(model))


def test_batched_products_have_a_neuron_per_column_and_matrix() -> None:
    (weight,), _ = find_weights(single("MatMul", [5, 2, 4], [5, 4, 3]))
    assert weight.layout.count == 15
    assert weight.layout.neurons == (0, 2)


def test_weights_on_the_left_have_neurons_in_rows() -> None:
    net = Net(x=[4, 2])
    model = net.model(net("MatMul", net.weight(3, 4), "x"))
    (weight,), _ = find_weights(model)
    np.testing.assert_array_equal(weight.rows(model), weight.values(model))


def test_a_transpose_in_between_is_looked_through() -> None:
    net = Net(x=[2, 4])
    stored = net.weight(3, 4)
    model = net.model(net("MatMul", "x", net("Transpose", stored, perm=[1, 0])))
    (weight,), skipped = find_weights(model)
    assert not skipped
    np.testing.assert_array_equal(weight.rows(model), weight.values(model))


def test_a_reshape_and_an_unsqueeze_in_between_are_looked_through() -> None:
    net = Net(x=[1, 3, 8])
    filters = net("Reshape", net.weight(5, 12), net.store([0, 3, -1], np.int64))
    made = net("Conv", "x", filters, kernel_shape=[4])
    column = net("Unsqueeze", net.weight(5, 7), net.store([0], np.int64))
    weights, skipped = find_weights(net.model(net("MatMul", column, made)))
    assert not skipped
    assert [weight.layout.count for weight in weights] == [5, 5]


def test_an_embedding_has_a_row_per_token_and_counts_once_where_it_is_tied() -> None:
    net = Net()
    net.add_input("ids", onnx.TensorProto.INT64, [2, 5])
    table = net.weight(7, 4)
    logits = net("MatMul", net("Gather", table, "ids"), net("Transpose", table, perm=[1, 0]))
    (weight,), _ = find_weights(net.model(logits))
    assert (weight.kind, weight.layout.count) == ("Gather", 7)


def test_recurrent_cells_have_a_row_per_gate_and_unit() -> None:
    net = Net(x=[3, 1, 4])
    net("LSTM", "x", net.weight(2, 20, 4), net.weight(2, 20, 5), hidden_size=5, direction="bidirectional")
    weights, _ = find_weights(net.model("LSTM0"))
    assert [weight.layout.count for weight in weights] == [40, 40]


def test_biases_and_scales_are_no_weights() -> None:
    net = Net(x=[1, 4])
    made = net("Add", net("MatMul", "x", net.weight(4, 3)), net.weight(3))
    weights, skipped = find_weights(net.model(net("Mul", made, net.weight(1, 3))))
    assert len(weights) == 1
    assert not skipped


def test_what_is_computed_on_the_way_is_listed() -> None:
    net = Net(x=[1, 4])
    doubled = net("Mul", net.weight(4, 3), net.store(2.0))
    weights, skipped = find_weights(net.model(net("MatMul", "x", doubled)))
    assert not weights
    assert "computed" in skipped[0].reason

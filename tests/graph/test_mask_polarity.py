"""Masks either way round: what counts is 1 in some, and what is padding in others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from nets import Net
from onnx import TensorProto

import redtest_onnx as rt
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.mask_polarity import marks_padding
from redtest_onnx.graph.masks import find_mask
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench

Write = Callable[[Net, str], str]
"""From a mask [n, t] to what is added to scores."""
LOW = np.finfo(np.float32).min


def cast(net: Net, name: str, to: int) -> str:
    return net("Cast", name, to=to)


def chosen(net: Net, mask: str, *, padding: bool) -> str:
    options = [net.store(-np.inf), net.store(0.0)]
    return net("Where", cast(net, mask, TensorProto.BOOL), *(options if padding else options[::-1]))


def turned_product(net: Net, mask: str) -> str:
    """As BERT has it: (1 - mask) * -3e38."""
    return net("Mul", net("Sub", net.store(1.0), cast(net, mask, TensorProto.FLOAT)), net.store(LOW))


def product(net: Net, mask: str) -> str:
    row = net("Unsqueeze", cast(net, mask, TensorProto.FLOAT), net.store([1], np.int64))
    return net("Mul", row, net.store(-1e9))


def equal_to_zero(net: Net, mask: str) -> str:
    none = net("Equal", cast(net, mask, TensorProto.INT64), net.store(0, np.int64))
    return net("Where", none, net("Expand", net.store(-1e4), net("Shape", mask)), net.store(0.0))


def negated(net: Net, mask: str) -> str:
    low = net("Cast", net.store(LOW), to=TensorProto.FLOAT)
    return net("Where", net("Not", cast(net, mask, TensorProto.BOOL)), low, net.store(0.0))


def unused(net: Net, mask: str) -> str:
    return cast(net, mask, TensorProto.FLOAT)


CASES: dict[str, tuple[Write, bool | None]] = {
    "masked fill": (lambda net, mask: chosen(net, mask, padding=True), True),
    "kept": (lambda net, mask: chosen(net, mask, padding=False), False),
    "turned product": (turned_product, False),
    "product": (product, True),
    "equal to zero": (equal_to_zero, False),
    "negated": (negated, False),
    "unused": (unused, None),
}


def model(write: Write, name: str = "key_mask", dtype: int = TensorProto.BOOL) -> rt.Model:
    """Attention weights over positions, of ids that are looked up."""
    net = Net()
    ids, mask = (net.add_input(n, d, ["n", "t"]) for n, d in (("ids", TensorProto.INT64), (name, dtype)))
    values = net("Gather", net.weight(9, 4), ids)
    scores = net("Squeeze", net("MatMul", values, net.weight(4, 1)), net.store([2], np.int64))
    weights = net("Softmax", net("Add", scores, net("Reshape", write(net, mask), net("Shape", mask))), axis=1)
    wide = net("Unsqueeze", weights, net.store([2], np.int64))
    return net.model(net("MatMul", net("Mul", values, wide), net.weight(4, 3)))


@pytest.mark.parametrize("case", CASES)
def test_the_graph_tells_what_true_means(case: str) -> None:
    write, expected = CASES[case]
    made = model(write)
    assert marks_padding(made, index_of(made), "key_mask") == expected


@pytest.mark.parametrize(
    ("name", "dtype", "inverted"),
    [
        ("src_key_padding_mask", TensorProto.BOOL, True),
        ("padding_mask", TensorProto.INT64, False),  # numbers of that name say what counts, too
        ("attention_mask", TensorProto.BOOL, False),
    ],
)
def test_else_the_name_of_a_truth_value_tells(name: str, dtype: int, inverted: bool) -> None:
    found = find_mask(model(unused, name, dtype))
    assert found is not None
    assert (found.input, found.inverted, found.of_ids) == (name, inverted, False)


@pytest.mark.parametrize("padding", [True, False])
def test_either_way_round_the_same_positions_count(padding: bool) -> None:
    made = model(lambda net, mask: chosen(net, mask, padding=padding))
    counted = np.arange(6)[None] < np.array([[2], [6], [4]])
    ids = np.random.default_rng(0).integers(0, 9, (3, 6))
    data = rt.open_data({"ids": ids, "key_mask": counted != padding}, made)
    bench = Workbench(made, data, RunOptions("cpu", 1))
    assert bench.mask is not None
    np.testing.assert_array_equal(bench.mask.counted(data.inputs(np.arange(3))), counted)


@pytest.mark.parametrize("padding", [True, False])
def test_synthetic_inputs_have_no_padding(padding: bool) -> None:
    made = model(lambda net, mask: chosen(net, mask, padding=padding))
    mask = rt.open_data(None, made).inputs(np.arange(2))["key_mask"]
    assert (mask == (not padding)).all()

"""Adapters in every layout, as their operators and weights say it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.layers.adaptation import KernelWindow
from redtest_onnx.pruning.adapters import _activation, _convolution, _middle, _turned, plain_adapter
from redtest_onnx.runtime.workbench import Workbench

CPU = rt.RunOptions("cpu", 1)
FLOAT = np.dtype(np.float32)


def slow(x: np.ndarray[Any, Any], weight: np.ndarray[Any, Any], strides: list[int], pads: list[int]) -> Any:
    """A convolution over one axis, by its definition."""
    padded = np.pad(x, ((0, 0), (pads[0], pads[1])))
    kernel = weight.shape[2]
    count = (padded.shape[1] - kernel) // strides[0] + 1
    windows = [padded[:, k * strides[0] : k * strides[0] + kernel] for k in range(count)]
    return np.stack([np.einsum("ck,mck->m", window, weight) for window in windows], axis=1)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("before", "after"), [(8, 8), (8, 4), (9, 3), (15, 8), (7, 4), (5, 4), (8, 1)])
def test_a_convolution_gives_the_size_behind_and_means_of_windows(
    before: int, after: int, kernel: int
) -> None:
    made = _convolution((1, 3, before), (1, 2, after), kernel, FLOAT)
    weight, bias = made.weights
    assert (weight.dtype, bias.dtype) == (FLOAT, FLOAT)
    np.testing.assert_array_equal(bias, np.zeros(2))
    x = np.random.default_rng(0).normal(size=(3, before))
    strides, pads = made.attributes["strides"], made.attributes["pads"]
    found = slow(x, weight, strides, pads)
    assert found.shape == (2, after)
    assert made.attributes["kernel_shape"] == list(weight.shape[2:])
    assert weight.shape[2] >= kernel
    np.testing.assert_allclose(weight.sum(axis=2), np.eye(2, 3), atol=1e-6)  # means of what they cover
    assert pads[1] - pads[0] in (0, 1)
    if before % after == 0 and kernel == 1:
        expected = x[:2].reshape(2, after, -1).mean(axis=2)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "window", "expected"),
    [(3, 1, (1, 2)), (3, 3, (0, 3)), (4, 1, (1, 2)), (4, 2, (1, 3)), (5, 2, (1, 3))],
)
def test_a_window_stands_in_the_middle_of_a_larger_kernel(
    size: int, window: int, expected: tuple[int, int]
) -> None:
    found = _middle(size, KernelWindow(1, window))
    assert (found.start, found.stop) == expected


def test_channels_turn_to_the_front() -> None:
    assert _turned((1, 5, 6, 3)) == (1, 3, 5, 6)
    assert _turned((1, 5, 3)) == (1, 3, 5)


def test_images_with_channels_behind_are_turned_there_and_back() -> None:
    net = Net(x=(1, 4, 4, 3))

    def conv(source: str, inputs: int, outputs: int, stride: int, name: str) -> str:
        front = net("Transpose", source, perm=[0, 3, 1, 2])
        return net("Transpose", net.conv(front, inputs, outputs, stride=stride), perm=[0, 2, 3, 1], name=name)

    net("Relu", conv("x", 3, 3, 1, "entry"), name="bent")
    net("Relu", conv("bent", 3, 6, 2, "inner"), name="exit")
    model = net.model(net("MatMul", "exit", net.weight(6, 2), name="y"))
    bench = Workbench(model, rt.open_data(None, model, count=4), CPU)
    turn, convolution, back, relu = plain_adapter(bench, "bent", "exit", 3)
    assert (turn.op, turn.attributes) == ("Transpose", {"perm": [0, 3, 1, 2]})
    assert (back.op, back.attributes) == ("Transpose", {"perm": [0, 2, 3, 1]})
    assert relu.op == "Relu"
    assert convolution.weights[0].shape == (6, 3, 3, 3)
    assert convolution.attributes["strides"] == [2, 2]


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 4), (4, 2), (3, 5)])
def test_vectors_take_a_product_with_its_bias(inputs: int, outputs: int) -> None:
    net = Net(x=(1, 5, inputs))
    net("Relu", "x", name="entry")
    net("MatMul", "entry", net.weight(inputs, outputs), name="exit")
    model = net.model(net("Relu", "exit", name="y"))
    bench = Workbench(model, rt.open_data(None, model, count=4), CPU)
    product, add = plain_adapter(bench, "entry", "exit")
    assert (product.op, add.op) == ("MatMul", "Add")
    np.testing.assert_array_equal(product.weights[0], np.eye(inputs, outputs, dtype=np.float32))
    np.testing.assert_array_equal(add.weights[0], np.zeros(outputs, np.float32))
    assert product.weights[0].dtype == add.weights[0].dtype == np.float32


def test_only_functions_of_one_operand_end_an_adapter() -> None:
    net = Net(x=(1, 4))
    net("LeakyRelu", "x", name="leaky", alpha=0.25)
    net("PRelu", "leaky", net.weight(4), name="learnt")
    net("MatMul", "learnt", net.weight(4, 4), name="y")
    index = GraphIndex(net.model("y").graph)
    (leaky,) = _activation(index, "leaky")
    assert (leaky.op, leaky.weights, leaky.attributes) == ("LeakyRelu", (), {"alpha": 0.25})
    assert _activation(index, "learnt") == ()
    assert _activation(index, "y") == ()

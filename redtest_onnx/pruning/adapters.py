"""Adapters: what stands in for a layer that changes the shape of its values."""

from __future__ import annotations

import numpy as np
import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import FLOAT
from redtest_onnx.graph.shapes import Shape
from redtest_onnx.graph.surgery import AdapterOperator
from redtest_onnx.layers.adaptation import KernelWindow, windows
from redtest_onnx.layers.layout import channels_first
from redtest_onnx.runtime.workbench import Workbench


def plain_adapter(bench: Workbench, entry: str, exit_: str, kernel: int = 1) -> tuple[AdapterOperator, ...]:
    """An adapter without fitted values: positions are averaged, channels kept, cut off or filled with zeros.

    It ends with the activation function that the layer ended with. Its bias is zero, to be fitted.

    Args:
        bench: the model with the layer still in it, whose shapes of the two tensors are known: [n, C, H, W],
            [n, C, L] of convolutions, [n, T, D] or [n, D].
        entry: what comes in.
        exit_: what must come out, of the same rank.
        kernel: smallest size of the convolution's window.
    """
    index, shapes = bench.index, bench.shapes
    before, after = shapes.sizes[entry], shapes.sizes[exit_]
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(shapes.dtypes.get(entry, FLOAT)))
    activation = _activation(index, exit_)
    first = channels_first(index, entry, exit_, len(before))
    if not first and before[1:-1] == after[1:-1]:
        bias = np.zeros(after[-1], dtype)
        product = AdapterOperator("MatMul", (np.eye(before[-1], after[-1], dtype=dtype),))
        return (product, AdapterOperator("Add", (bias,)), *activation)
    if not first:
        # [N, H, W, C]: a convolution wants its channels in front.
        rank = len(before)
        to_front, to_back = [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]
        return (
            AdapterOperator("Transpose", (), {"perm": to_front}),
            _convolution(_turned(before), _turned(after), kernel, dtype),
            AdapterOperator("Transpose", (), {"perm": to_back}),
            *activation,
        )
    return (_convolution(before, after, kernel, dtype), *activation)


def _turned(shape: Shape) -> Shape:
    """[N, ..., C] as [N, C, ...]."""
    return (shape[0], shape[-1], *shape[1:-1])


def _convolution(before: Shape, after: Shape, kernel: int, dtype: np.dtype[np.generic]) -> AdapterOperator:
    """The convolution [M, C, kernel...] from [N, C, ...] to [N, M, ...], padded as its kernel needs."""
    found = windows(before[2:], after[2:])
    assert found is not None
    sizes = [max(window.size, kernel) for window in found]
    weight = np.zeros((after[1], before[1], *sizes), dtype)
    identity = np.eye(after[1], before[1]).reshape(after[1], before[1], *[1] * len(found))
    middle = tuple(_middle(size, window) for size, window in zip(sizes, found, strict=True))
    weight[(slice(None), slice(None), *middle)] = identity / np.prod([window.size for window in found])
    excess = [
        max((b - 1) * window.stride + size - a, 0)
        for a, b, size, window in zip(before[2:], after[2:], sizes, found, strict=True)
    ]
    pads = [e // 2 for e in excess] + [e - e // 2 for e in excess]
    attributes = {"kernel_shape": sizes, "strides": [window.stride for window in found], "pads": pads}
    return AdapterOperator("Conv", (weight, np.zeros(after[1], dtype)), attributes)


def _middle(size: int, window: KernelWindow) -> slice:
    return slice((size - window.size) // 2, (size - window.size) // 2 + window.size)


def _activation(index: GraphIndex, tensor: str) -> tuple[AdapterOperator, ...]:
    """The function of one operand that makes a tensor; nothing if it is made otherwise."""
    node = index.nodes[index.producer[tensor]]
    if node.op_type not in ops.ACTIVATION or len(node.input) != 1:
        return ()
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return (AdapterOperator(node.op_type, (), attributes),)

"""Adapters: what stands in for a layer that changes the shape of its values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import FLOAT
from redtest_onnx.graph.shapes import Shape
from redtest_onnx.graph.surgery import AdapterOperator
from redtest_onnx.layers.layer import channels_first
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
    if len(before) != 4 and not channels_first(index, entry, exit_, len(before)):
        bias = np.zeros(after[-1], dtype)
        product = AdapterOperator("MatMul", (np.eye(before[-1], after[-1], dtype=dtype),))
        return (product, AdapterOperator("Add", (bias,)), *activation)
    stride = _strides(before, after)
    window = [max(s, kernel) for s in stride]
    middle = tuple(slice((w - s) // 2, (w + s) // 2) for w, s in zip(window, stride, strict=True))
    weight = np.zeros((after[1], before[1], *window), dtype)
    identity = np.eye(after[1], before[1]).reshape(after[1], before[1], *[1] * len(stride))
    weight[(slice(None), slice(None), *middle)] = identity / np.prod(stride)
    return (_convolution(weight, np.zeros(after[1], dtype), before, after), *activation)


def _convolution(
    weight: npt.NDArray[np.generic], bias: npt.NDArray[np.generic], before: Shape, after: Shape
) -> AdapterOperator:
    """The convolution [M, C, kernel...] between two sizes; what its kernel sticks out is padded."""
    stride = _strides(before, after)
    excess = [
        max((b - 1) * s + k - a, 0)
        for a, b, s, k in zip(before[2:], after[2:], stride, weight.shape[2:], strict=True)
    ]
    pads = [e // 2 for e in excess] + [e - e // 2 for e in excess]
    attributes = {"kernel_shape": list(weight.shape[2:]), "strides": list(stride), "pads": pads}
    return AdapterOperator("Conv", (weight, bias), attributes)


def _strides(before: Shape, after: Shape) -> Sequence[int]:
    return [-(-a // b) for a, b in zip(before[2:], after[2:], strict=True)]


def _activation(index: GraphIndex, tensor: str) -> tuple[AdapterOperator, ...]:
    """The function of one operand that makes a tensor; nothing if it is made otherwise."""
    node = index.nodes[index.producer[tensor]]
    if node.op_type not in ops.ACTIVATION or len(node.input) != 1:
        return ()
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return (AdapterOperator(node.op_type, (), attributes),)

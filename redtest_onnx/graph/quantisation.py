"""Scales of quantised tensors: their integers mean nothing without them."""

from __future__ import annotations

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex

# Operator -> positions of the scale and zero point of what it makes.
_MAKES: dict[str, tuple[int, int]] = {
    "QuantizeLinear": (1, 2),
    "QLinearConv": (6, 7),
    "QLinearMatMul": (6, 7),
    ops.MS + "QLinearAdd": (6, 7),
    ops.MS + "QLinearMul": (6, 7),
    ops.MS + "QGemm": (7, 8),
    ops.MS + "QLinearSigmoid": (3, 4),
    ops.MS + "QLinearLeakyRelu": (3, 4),
    ops.MS + "QLinearSoftmax": (3, 4),
    ops.MS + "QLinearAveragePool": (3, 4),
    ops.MS + "QLinearGlobalAveragePool": (3, 4),
    ops.MS + "QLinearConcat": (0, 1),
}
_KEEPS = frozenset(
    {
        "MaxPool",
        "Reshape",
        "Transpose",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Identity",
        "Slice",
        "Split",
        "Resize",
    }
)


def same_scale(index: GraphIndex, one: str, other: str) -> bool:
    """Whether the integers of two quantised tensors stand for the same numbers; false if that is unknown."""
    scale = _scale(index, one)
    return scale is not None and scale == _scale(index, other)


def scale_operands(index: GraphIndex, tensor: str) -> tuple[str, str, int | None] | None:
    """What `DequantizeLinear` needs for a quantised tensor: names of scale and zero point, and the axis.

    The zero point is "" where there is none, the axis None where the scale is one number. None for tensors
    that are not quantised, whose scale is unknown, or whose axis an operator in between may have moved.
    """
    source, moved = tensor, False
    while (producer := index.producer.get(source)) is not None:
        node = index.nodes[producer]
        if (places := _MAKES.get(ops.qualified(node))) is not None:
            scale, zero = (node.input[k] if k < len(node.input) else "" for k in places)
            stored = index.initializers.get(scale)
            if stored is None or len(stored.dims) == 0 or tuple(stored.dims) == (1,):
                return scale, zero, None
            axis = ops.attribute(node, "axis", 1)
            return None if moved or not isinstance(axis, int) else (scale, zero, axis)
        if ops.qualified(node) not in _KEEPS:
            return None
        source, moved = node.input[0], True
    return None


def _scale(index: GraphIndex, tensor: str) -> tuple[bytes | str, ...] | None:
    """Scale and zero point of a tensor: their stored values, or the names of what computes them."""
    while (producer := index.producer.get(tensor)) is not None:
        node = index.nodes[producer]
        if (places := _MAKES.get(ops.qualified(node))) is not None:
            names = (node.input[k] if k < len(node.input) else "" for k in places)
            return tuple(_content(index, name) for name in names)
        if ops.qualified(node) not in _KEEPS:
            return None
        tensor = node.input[0]
    return None


def _content(index: GraphIndex, name: str) -> bytes | str:
    stored = index.initializers.get(name)
    if stored is None or stored.data_location == onnx.TensorProto.EXTERNAL:
        return name
    return onnx.numpy_helper.to_array(stored).tobytes()

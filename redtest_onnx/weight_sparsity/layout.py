"""Where the neurons lie in a stored weight tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.graph import operators as ops

_MS = ops.MS
_OUTPUTS_FIRST = ops.CONVOLUTION - {"ConvTranspose"}
_GEMM = {"Gemm", _MS + "FusedGemm", _MS + "QGemm"}
_ROWS = {"Gather", _MS + "EmbedLayerNormalization"}


@dataclass(frozen=True)
class Layout:
    """How a stored tensor is seen as a matrix with a neuron in each row.

    A neuron is what makes one output value from the inputs: an output channel of a convolution with all its
    input channels and kernel positions, a column of a matrix product, a row of an embedding.

    Attributes:
        view: sizes that the stored tensor is viewed as; their product is its number of elements.
        neurons: axes of the view that number the neurons, in order.
    """

    view: tuple[int, ...]
    neurons: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of neurons."""
        return prod(self.view[axis] for axis in self.neurons)

    def rows(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """[neurons, inputs] values of a tensor of the stored shape; a view where memory allows."""
        turned = values.reshape(self.view).transpose(self._order)
        return turned.reshape(self.count, -1 if values.size else 0)

    def restore(self, rows: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
        """The tensor of the stored shape from its rows."""
        turned = rows.reshape([self.view[axis] for axis in self._order])
        return np.ascontiguousarray(turned.transpose(np.argsort(self._order))).reshape(tuple(shape))

    @property
    def _order(self) -> tuple[int, ...]:
        inputs = (axis for axis in range(len(self.view)) if axis not in self.neurons)
        return (*self.neurons, *inputs)


def layout_of(
    node: onnx.NodeProto, position: int, view: Sequence[int], turned: Sequence[int]
) -> Layout | None:
    """The layout of the weights that an operator reads; None where it is not defined.

    Args:
        node: the operator.
        position: which of its inputs holds the weights.
        view: sizes that the stored tensor is viewed as.
        turned: axis of the view of each axis that the operator sees; differ where a Transpose stands between.
    """
    rank = len(view)
    kind = ops.qualified(node)
    if kind == "ConvTranspose":
        group = int(str(ops.attribute(node, "group", 1)))
        if list(turned) != list(range(rank)) or view[0] % group:
            return None
        return Layout((group, view[0] // group, *view[1:]), (0, 2))
    axes = _axes(node, kind, position, rank)
    return None if axes is None else Layout(tuple(view), tuple(turned[axis] for axis in axes))


def _axes(node: onnx.NodeProto, kind: str, position: int, rank: int) -> tuple[int, ...] | None:
    """Axes of a weight, as its operator sees it, that number its neurons."""
    if kind in _OUTPUTS_FIRST:
        return (0,)
    if kind in _ROWS:
        return (int(str(ops.attribute(node, "axis", 0))) % rank,)
    if kind in ops.RECURRENT:
        return (0, 2) if kind == _MS + "DynamicQuantizeLSTM" else (0, 1)
    if kind == "Einsum":
        return _einsum_axes(node, position, rank)
    if kind == _MS + "MoE":
        return (0, rank - 1)
    first = position == 0 and kind not in _GEMM and not kind.startswith(_MS)
    if kind in _GEMM or kind == _MS + "FusedMatMul":
        flag = "transA" if position == 0 else "transB"
        outputs_last = (position == 0) == bool(ops.attribute(node, flag, 0))
        return (*range(rank - 2), rank - 1 if outputs_last else rank - 2)
    return tuple(range(rank - 1)) if first else (*range(rank - 2), rank - 1)


def _einsum_axes(node: onnx.NodeProto, position: int, rank: int) -> tuple[int, ...] | None:
    """Letters that the result has from the weights alone."""
    equation = ops.attribute(node, "equation", b"")
    assert isinstance(equation, bytes)
    inputs, arrow, result = equation.decode().replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow or "." in inputs or position >= len(terms) or len(terms[position]) != rank:
        return None
    axes = tuple(k for k, letter in enumerate(terms[position]) if letter in result)
    return axes if 0 < len(axes) < rank else None

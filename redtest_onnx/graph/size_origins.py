"""Where the sizes of activations come from: which axis of which input, by what the operators say of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import declared_shapes

_SAME_SHAPE = (
    ops.ACTIVATION
    | ops.NORMALISATION
    | frozenset(
        {"Neg", "Abs", "Sqrt", "Reciprocal", "Exp", "Log", "Identity", "Dropout", "Cast", "Softmax", "Sign"}
        | {ops.MS + "RotaryEmbedding", ops.MS + "BiasGelu", "Not"}
    )
)
_BROADCAST = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Where", "Min", "Max"})
_ROWS = frozenset({"MatMul", "MatMulInteger", ops.MS + "MatMulNBits", ops.MS + "FusedMatMul"})
_CHOICES = frozenset({"Shape", "Gather", "Slice"})
_AXES = 4  # more no attention has

Size = tuple[tuple[str, int], ...]
"""Tensors and axes whose sizes add up to a size."""


class SizeOrigins:
    """Where the sizes of activations come from, axis by axis.

    Args:
        model: the model.
        index: of its main graph.
    """

    def __init__(self, model: Model, index: GraphIndex) -> None:
        self._model, self._index = model, index
        self._static = declared_shapes(model)
        self._symbols = {
            (spec.name, axis): dim
            for spec in model.inputs
            for axis, dim in enumerate(spec.shape or ())
            if isinstance(dim, str)
        }
        self._known: dict[tuple[str, int], Size] = {}
        for node in index.nodes:
            for name in node.output:
                if name in index.input_dependent:
                    for axis in range(_AXES):
                        self._known[name, axis] = self._traced(node, name, axis) or ((name, axis),)

    def of(self, name: str, axis: int) -> Size:
        """The origins of one size; the tensor itself where nothing is known."""
        return self._known.get((name, axis), ((name, axis),))

    def axis(self, name: str, position: int) -> int | None:
        """An axis counted from the front; None where it is counted from the back of an unknown rank."""
        rank = len(self._static.get(name, ()))
        return position if position >= 0 else rank + position if rank else None

    def _traced(self, node: onnx.NodeProto, name: str, axis: int) -> Size | None:
        """Where an axis of a node's result has its size from; None where the operator doesn't tell."""
        kind, data = ops.qualified(node), node.input[0] if node.input else ""
        if kind in _SAME_SHAPE and name == node.output[0]:
            return self.of(data, axis)
        if kind in _BROADCAST:
            return self._broadcast(node, name, axis)
        if kind in _ROWS and (self._is_stored(node.input[1]) or kind == "MatMul"):
            return (
                self.of(data, axis)
                if axis < self._last(name) and data in self._index.input_dependent
                else None
            )
        if kind == "Gemm" and axis == 0 and not ops.attribute(node, "transA", 0):
            return self.of(data, 0)
        if kind in ops.REDUCTION:
            axes = self._axes(node)
            kept = bool(ops.attribute(node, "keepdims", 1)) and axes == [-1] and axis < self._last(name)
            return self.of(data, axis) if kept else None
        if kind == "Transpose":
            perm = ops.attribute(node, "perm")
            return self.of(data, int(perm[axis])) if isinstance(perm, list) and axis < len(perm) else None
        if kind == "Gather" and ops.attribute(node, "axis", 0) == 0 and self._is_stored(data):
            return self.of(node.input[1], axis) if axis < 2 else None
        if kind == "Concat":
            concat = self.axis(name, int(str(ops.attribute(node, "axis", 0))))
            if concat is None:
                return None
            return (
                sum((self.of(read, axis) for read in node.input), ())
                if concat == axis
                else self.of(data, axis)
            )
        return self._reshaped(node, axis) if kind == "Reshape" else None

    def _last(self, name: str) -> int:
        """The last axis of a tensor; that of a sequence, if its rank is unknown."""
        return len(self._static.get(name, (None,) * 3)) - 1

    def _broadcast(self, node: onnx.NodeProto, name: str, axis: int) -> Size | None:
        """The size that all activations among the operands share; constants are no larger, as a bias is."""
        small = all(
            len(self._index.initializers[read].dims) <= 1
            for read in node.input
            if read in self._index.initializers
        )
        found = {self.of(read, axis) for read in node.input if read in self._index.activations}
        return found.pop() if len(found) == 1 and small and axis < self._last(name) else None

    def _is_stored(self, name: str) -> bool:
        tensor = self._index.initializers.get(name)
        return (tensor is not None and len(tensor.dims) == 2) or (
            tensor is None and name not in self._index.input_dependent
        )

    def _axes(self, node: onnx.NodeProto) -> list[int]:
        axes = ops.attribute(node, "axes")
        if isinstance(axes, list):
            return [int(axis) for axis in axes]
        stored = constant(self._model, self._index, node.input[1]) if len(node.input) > 1 else None
        return [] if stored is None else [int(axis) for axis in stored.reshape(-1)]

    def _reshaped(self, node: onnx.NodeProto, axis: int) -> Size | None:
        """Sizes that a reshape copies (0), takes from another tensor's, or leaves over (-1)."""
        parts = self._target(node.input[1])
        if axis >= len(parts):
            return None
        part = parts[axis]
        if part is None or isinstance(part, tuple):
            return part
        if part == 0 and not ops.attribute(node, "allowzero", 0):
            return self.of(node.input[0], axis)
        if part != -1 or axis > 1:
            return None
        if axis == 0:
            rest = len(parts) == 2 and self._same(parts[1], self.of(node.input[0], 1))
            return (
                self.of(node.input[0], 0) if rest and len(self._static.get(node.input[0], ())) == 2 else None
            )
        # The samples stay in front, what follows has as many elements as before: this axis is what it was.
        before = self._static.get(node.input[0], ())
        old, new = _numbers(before[2:]), _numbers(parts[2:])
        same = parts[0] == 0 or self._same(parts[0], self.of(node.input[0], 0))
        if len(before) < 2 or old is None or new is None or not same:
            return None
        return self.of(node.input[0], 1) if prod(old) == prod(new) else None

    def _same(self, one: int | Size | None, other: Size) -> bool:
        """Whether two sizes are equal: of one origin, or of inputs whose sizes are declared by one symbol."""
        if one is None or isinstance(one, int):
            return False
        symbols = [sorted(str(self._symbols.get(origin, origin)) for origin in size) for size in (one, other)]
        return symbols[0] == symbols[1]

    def _target(self, name: str) -> list[int | Size | None]:
        """The sizes that a reshape asks for: numbers, origins or None; empty if their places are unknown."""
        stored = constant(self._model, self._index, name)
        if stored is not None:
            return [int(size) for size in stored.reshape(-1)]
        producer = self._index.producer.get(name)
        if producer is None or self._index.nodes[producer].op_type != "Concat":
            return []
        found: list[int | Size | None] = []
        for part in self._index.nodes[producer].input:
            value = constant(self._model, self._index, part)
            sizes = self._read_off(part) if value is None else [int(size) for size in value.reshape(-1)]
            if sizes is None:
                return []  # how many sizes these are isn't known, so what is behind them has no place
            found.extend(sizes)
        return found

    def _read_off(self, name: str) -> Sequence[Size | None] | None:
        """The origins of sizes that are read off a tensor; None if even their number is unknown."""
        last = name
        for _ in range(3):
            producer = self._index.producer.get(last)
            node = None if producer is None else self._index.nodes[producer]
            if node is None or node.op_type not in ("Unsqueeze", "Reshape", "Cast", "Identity"):
                break
            last = node.input[0]
        found = self._chosen(node) if node is not None and node.op_type in _CHOICES else None
        if found is not None:
            return found
        counted = _numbers(self._static[name]) if name in self._static else None
        return None if counted is None else [None] * prod(counted)

    def _chosen(self, node: onnx.NodeProto) -> Sequence[Size | None] | None:
        """The origins of the sizes that a Shape gives, or that a Gather or a Slice takes of one."""
        producer = self._index.producer.get(node.input[0])
        shape = node if node.op_type == "Shape" or producer is None else self._index.nodes[producer]
        if shape.op_type != "Shape" or shape.attribute:
            return None
        tensor = shape.input[0]
        constants = [constant(self._model, self._index, name) for name in node.input[1:]]
        given = [[int(value) for value in stored.reshape(-1)] for stored in constants if stored is not None]
        if len(given) < len(constants):
            return None
        if node.op_type == "Gather":
            axes = [self.axis(tensor, place) for place in given[0]]
            return [None if axis is None else self.of(tensor, axis) for axis in axes]
        if tensor not in self._static or (node.op_type == "Slice" and len(given) < 2):
            return None
        step = given[3][0] if len(given) > 3 else 1
        bounds = slice(given[0][0], given[1][0], step) if given else slice(None)
        return [self.of(tensor, axis) for axis in range(len(self._static[tensor]))[bounds]]


def _numbers(sizes: Sequence[object]) -> list[int] | None:
    """Sizes that are all known; None where one is not."""
    found = [size for size in sizes if isinstance(size, int) and size > 0]
    return found if len(found) == len(sizes) else None


def constant(model: Model, index: GraphIndex, name: str) -> npt.NDArray[Any] | None:
    """The value of a small constant; None for anything else."""
    if (tensor := index.initializers.get(name)) is not None:
        return model.value(tensor) if sum(tensor.dims) <= 64 else None
    producer = index.producer.get(name)
    if producer is None or index.nodes[producer].op_type != "Constant":
        return None
    value = ops.attribute(index.nodes[producer], "value")
    if isinstance(value, onnx.TensorProto):
        return model.value(value)
    single = ops.attribute(index.nodes[producer], "value_int")
    return None if single is None else np.array(single)

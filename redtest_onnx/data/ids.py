"""What integers an input may hold: rows of the tables it points into, lengths, constants it is held against.

The values of an input are followed through casts, shifts, picks of columns and reshapes to the operators that
use them as indices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.axes import Axis, axes_of
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.model import Model

_PASSED_ON = frozenset(
    {
        "Cast",
        "Identity",
        "Unsqueeze",
        "Squeeze",
        "Reshape",
        "Flatten",
        "Transpose",
        "Expand",
        "Concat",
        "Tile",
    }
    | {"CastLike", "Dropout", "Clip", "Where", "Mul", "ScatterElements"}
)
# Operator -> position of the table and of the indices.
_LOOKUPS = {
    "Gather": (0, 1),
    "GatherElements": (0, 1),
    "GatherND": (0, 1),
    "ScatterElements": (0, 1),
    "ScatterND": (0, 1),
    "Scatter": (0, 1),
}
_EMBEDDINGS = {0: 2, 1: 4}  # inputs of EmbedLayerNormalization and their tables
# Operators that make a tensor of a given size -> position of the size.
_SIZED_BY = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
_COMPARISONS = frozenset({"Less", "LessOrEqual", "Greater", "GreaterOrEqual"})

Columns = tuple[int, slice] | None
"""The axis and part of an input that a value was picked from; None for all of it."""


@dataclass(frozen=True)
class IdBound:
    """Values must be rows of a table.

    Attributes:
        rows: axis of the table.
        shift: what is added to a value before it is looked up.
        columns: which values.
    """

    rows: Axis
    shift: int
    columns: Columns


@dataclass(frozen=True)
class _Trace:
    tensor: str
    shift: int = 0
    columns: Columns = None
    raw: bool = True  # still in the layout of the input


class InputValues:
    """What the graph tells of the values of its inputs.

    Args:
        model: the model.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._index = index_of(model)

    def bounds(self, name: str) -> list[IdBound]:
        """The tables that an input's values point into."""
        found: list[IdBound] = []
        for trace, reader in self._uses(name):
            node = self._index.nodes[reader]
            rows = self._table(node, trace.tensor)
            if rows is not None:
                found.append(IdBound(rows, trace.shift, trace.columns))
        return found

    def length_of(self, name: str) -> tuple[Axis, int] | None:
        """The axis whose length an input holds: it is compared with positions along it, or is a recurrent
        operator's sequence length; and what is added before."""
        flow = axes_of(self._model)
        for trace, reader in self._uses(name):
            node = self._index.nodes[reader]
            if node.op_type in _COMPARISONS:
                for other in node.input:
                    if other != trace.tensor and other in flow.ranges:
                        return flow.ranges[other], trace.shift
                    if other != trace.tensor and (counted := self._counted(other)) is not None:
                        return counted, trace.shift
            if _is_recurrent(node) and len(node.input) > 4 and node.input[4] == trace.tensor:
                steps = flow.tensors.get(node.input[0])
                if steps:
                    return steps[1 if ops.attribute(node, "layout", 0) else 0], trace.shift
        return None

    def is_size(self, name: str) -> bool:
        """Whether an input says how large something is that the model makes, such as the number of graphs."""
        for trace, reader in self._uses(name):
            node = self._index.nodes[reader]
            place = _SIZED_BY.get(node.op_type)
            if place is not None and len(node.input) > place and node.input[place] == trace.tensor:
                return True
        return False

    def compared(self, name: str) -> float | None:
        """The constant that an input is compared with: it makes the model take its first way."""
        for trace, reader in self._uses(name):
            node = self._index.nodes[reader]
            if node.op_type != "Equal" or trace.tensor != name:
                continue
            for operand in node.input:
                value = self.constant(operand)
                if operand != trace.tensor and value is not None and value.size == 1:
                    return float(value.item())
        return None

    def _one_hot(self, node: onnx.NodeProto, tensor: str) -> Axis | None:
        """One-hot codes by comparison: the values are held against 0, 1, ..., n - 1."""
        for operand in node.input:
            if operand != tensor and (counted := self._counted(operand)) is not None:
                return counted
        return None

    def _counted(self, name: str) -> Axis | None:
        """An axis as long as a stored 0, 1, ..., n - 1 that a tensor repeats or reshapes."""
        while (producer := self._index.producer.get(name)) is not None:
            maker = self._index.nodes[producer]
            if maker.op_type not in ("Expand", "Reshape", "Unsqueeze", "Cast", "Identity", "Tile"):
                break
            name = maker.input[0]
        value = self.constant(name)
        if value is None or value.size < 3 or not np.array_equal(value.reshape(-1), np.arange(value.size)):
            return None
        return Axis(value.size)

    def constant(self, name: str) -> npt.NDArray[np.generic] | None:
        """A stored value: an initializer, or what a Constant node holds."""
        if (tensor := self._index.initializers.get(name)) is not None:
            return self._model.value(tensor)
        producer = self._index.producer.get(name)
        if producer is None or self._index.nodes[producer].op_type != "Constant":
            return None
        for item in self._index.nodes[producer].attribute:
            value = onnx.helper.get_attribute_value(item)
            if isinstance(value, onnx.TensorProto):
                return self._model.value(value)
            if item.name in ("value_int", "value_float", "value_ints", "value_floats"):
                return np.asarray(value)
        return None

    def _uses(self, name: str) -> Iterator[tuple[_Trace, int]]:
        """Every node that uses the values of an input, shifted or picked perhaps."""
        seen: set[str] = set()
        stack = [_Trace(name)]
        while stack:
            trace = stack.pop()
            if trace.tensor in seen:
                continue
            seen.add(trace.tensor)
            for reader in self._index.readers.get(trace.tensor, ()):
                yield trace, reader
                stack.extend(self._following(trace, self._index.nodes[reader]))

    def _following(self, trace: _Trace, node: onnx.NodeProto) -> Iterator[_Trace]:
        kind = node.op_type
        if kind in ("Add", "Sub") and len(node.input) == 2:
            other = node.input[1 if node.input[0] == trace.tensor else 0]
            value = self.constant(other)
            if value is not None and value.size == 1 and (kind == "Add" or node.input[0] == trace.tensor):
                shift = int(value.item()) * (1 if kind == "Add" else -1)
                yield _Trace(node.output[0], trace.shift + shift, trace.columns, trace.raw)
        elif kind == "Gather" and node.input[0] == trace.tensor and trace.raw:
            value = self.constant(node.input[1])
            if value is not None and value.size == 1:
                start = int(value.item())
                part = slice(start, start + 1 if start != -1 else None)
                yield _Trace(node.output[0], trace.shift, (_axis(node, 0), part), False)
        elif kind == "Slice" and trace.raw:
            yield from self._sliced(trace, node)
        elif kind == "Split" and trace.raw:
            yield from self._split(trace, node)
        elif kind in _PASSED_ON and node.input[0] == trace.tensor:
            raw = trace.raw and kind in ("Cast", "Identity", "Clip", "Dropout")
            yield _Trace(node.output[0], trace.shift, trace.columns, raw)
        elif kind in ("Concat", "Where") and trace.tensor in node.input:
            yield _Trace(node.output[0], trace.shift, trace.columns, False)

    def _sliced(self, trace: _Trace, node: onnx.NodeProto) -> Iterator[_Trace]:
        operands = [axes_of(self._model).constants(name) for name in node.input[1:]]
        if len(operands) < 3 or any(value is None or len(value) != 1 for value in operands):
            yield _Trace(node.output[0], trace.shift, trace.columns, False)
            return
        start, stop, axis = (value[0] for value in operands[:3] if value is not None)
        yield _Trace(node.output[0], trace.shift, (axis, slice(start, stop)), False)

    def _split(self, trace: _Trace, node: onnx.NodeProto) -> Iterator[_Trace]:
        axes = axes_of(self._model).tensors.get(trace.tensor)
        axis = _axis(node, 0)
        size = axes[axis].size if axes else None
        given = ops.attribute(node, "split") or (
            axes_of(self._model).constants(node.input[1]) if len(node.input) > 1 else None
        )
        count = len(node.output)
        parts = list(given) if isinstance(given, list | tuple) else [-(-(size or count) // count)] * count
        start = 0
        for name, part in zip(node.output, parts, strict=False):
            yield _Trace(name, trace.shift, (axis, slice(start, start + int(part))), False)
            start += int(part)

    def _table(self, node: onnx.NodeProto, tensor: str) -> Axis | None:
        """The axis of the table that a node looks `tensor` up in; None if it does something else."""
        flow, kind = axes_of(self._model), ops.qualified(node)
        if kind == "OneHot" and node.input[0] == tensor:
            depth = self.constant(node.input[1])
            return None if depth is None else Axis(int(depth.reshape(-1)[0]))
        if kind == ops.MS + "EmbedLayerNormalization":
            place = _EMBEDDINGS.get(list(node.input).index(tensor))
            axes = (
                flow.tensors.get(node.input[place]) if place is not None and place < len(node.input) else None
            )
            return axes[0] if axes else None
        if kind.endswith("GatherBlockQuantized") and node.input[1] == tensor:
            axes = flow.tensors.get(node.input[0])
            return axes[0] if axes else None
        if kind == "Equal":
            return self._one_hot(node, tensor)
        places = _LOOKUPS.get(kind)
        if places is None or node.input[places[1]] != tensor:
            return None
        axes = flow.tensors.get(node.input[places[0]])
        if not axes:
            return None
        axis = int(str(ops.attribute(node, "batch_dims", 0))) if kind == "GatherND" else _axis(node, 0)
        return axes[axis]


def _is_recurrent(node: onnx.NodeProto) -> bool:
    return ops.qualified(node) in ops.RECURRENT


def _axis(node: onnx.NodeProto, default: int) -> int:
    return int(str(ops.attribute(node, "axis", default)))

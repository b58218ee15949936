"""Small values of a graph that are known before any run: what decides which branch of an If is taken.

Sizes that the file leaves open are unknown elements, so that a value counts as known only if it is the same
for every input the signature allows.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import Dim, Model, tensor_elements

Value: TypeAlias = npt.NDArray[np.object_]
"""An array of Python numbers; None stands for an unknown element."""

_LARGEST = 64  # elements; conditions are computed from few


class Folding:
    """Known values of the tensors of a main graph.

    Args:
        model: the model.
        index: of its main graph.
        shapes: declared or inferred dimensions of tensors, unknown sizes as anything but a number.
        fed: values of inputs that are taken for granted.
    """

    def __init__(
        self,
        model: Model,
        index: GraphIndex,
        shapes: Mapping[str, Sequence[Dim]],
        fed: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        self._model, self._index, self._shapes = model, index, shapes
        self._values: dict[str, Value | None] = {
            name: array.astype(object) for name, array in fed.items() if array.size <= _LARGEST
        }

    def value(self, name: str) -> Value | None:
        """The value of a tensor, perhaps with unknown elements; None if nothing is known of it."""
        stack = [name]
        while stack:
            top = stack[-1]
            if top in self._values:
                stack.pop()
                continue
            node = self._node(top)
            waiting = [] if node is None else [n for n in self._operands(node) if n not in self._values]
            if waiting:
                stack.extend(waiting)
                continue
            self._values[top] = self._stored(top) if node is None else self._made(node, top)
        return self._values[name]

    def truth(self, name: str) -> bool | None:
        """Whether a condition holds; None if that is unknown."""
        value = self.value(name)
        if value is None or value.size != 1 or value.item() is None:
            return None
        return bool(value.item())

    def _node(self, name: str) -> onnx.NodeProto | None:
        producer = self._index.producer.get(name)
        return None if producer is None else self._index.nodes[producer]

    def _operands(self, node: onnx.NodeProto) -> list[str]:
        """What has to be known before; shapes need no values."""
        return list(filter(None, node.input)) if ops.qualified(node) in _RULES else []

    def _stored(self, name: str) -> Value | None:
        tensor = self._index.initializers.get(name)
        return None if tensor is None else self._small(tensor)

    def _small(self, tensor: onnx.TensorProto) -> Value | None:
        numbers = tensor.data_type != onnx.TensorProto.STRING
        return self._model.value(tensor).astype(object) if numbers and _is_small(tensor) else None

    def _made(self, node: onnx.NodeProto, name: str) -> Value | None:
        kind = ops.qualified(node)
        if kind == "Constant":
            value = ops.attribute(node, "value")
            if isinstance(value, onnx.TensorProto):
                return self._small(value)
            number = ops.attribute(node, "value_int", ops.attribute(node, "value_float"))
            return None if number is None else np.array(number, object)
        if kind in ("Shape", "Size"):
            return self._size(node)
        if kind not in _RULES or len(node.output) != 1:
            return None
        values = [self._values[operand] if operand else None for operand in node.input]
        if any(value is None for operand, value in zip(node.input, values, strict=True) if operand):
            return None
        try:
            found = np.asarray(_RULES[kind](node, values), object)
        except (IndexError, ValueError, TypeError, ZeroDivisionError, OverflowError):
            return None  # the operator itself would fail on that, should it ever run
        return found if found.size <= _LARGEST else None

    def _size(self, node: onnx.NodeProto) -> Value | None:
        known = self._values.get(node.input[0])
        shape = self._shapes.get(node.input[0]) if known is None else known.shape
        if shape is None:
            return None
        sizes = [size if isinstance(size, int) else None for size in shape]
        if node.op_type == "Size":
            known_sizes = [size for size in sizes if size is not None]
            return np.array(prod(known_sizes) if len(known_sizes) == len(sizes) else None, object)
        start, end = ops.attribute(node, "start", 0), ops.attribute(node, "end")
        assert isinstance(start, int)
        return np.array(sizes[start : end if isinstance(end, int) else None], object)


def _is_small(tensor: onnx.TensorProto) -> bool:
    return 0 <= tensor_elements(tensor.dims) <= _LARGEST


def _elementwise(function: Callable[..., object]) -> Callable[[onnx.NodeProto, list[Any]], object]:
    def apply(node: onnx.NodeProto, values: list[Any]) -> object:
        known = np.frompyfunc(
            lambda *numbers: None if None in numbers else function(*numbers), len(values), 1
        )
        return known(*values)

    return apply


def _cast(node: onnx.NodeProto, values: list[Any]) -> object:
    code = ops.attribute(node, "to")
    assert isinstance(code, int)
    kind = onnx.helper.tensor_dtype_to_np_dtype(code).kind
    turn = {"b": bool, "i": int, "u": int}.get(kind, float)
    return _elementwise(turn)(node, values)


def _gather(node: onnx.NodeProto, values: list[Any]) -> object:
    axis = ops.attribute(node, "axis", 0)
    assert isinstance(axis, int)
    return np.take(values[0], values[1].astype(np.int64), axis)


def _axes(node: onnx.NodeProto, values: list[Any]) -> tuple[int, ...] | None:
    found = values[1].tolist() if len(values) > 1 and values[1] is not None else ops.attribute(node, "axes")
    return tuple(map(int, found)) if isinstance(found, list) else None


def _squeeze(node: onnx.NodeProto, values: list[Any]) -> object:
    return np.squeeze(values[0], _axes(node, values))


def _unsqueeze(node: onnx.NodeProto, values: list[Any]) -> object:
    return np.expand_dims(values[0], _axes(node, values) or ())


def _concat(node: onnx.NodeProto, values: list[Any]) -> object:
    axis = ops.attribute(node, "axis")
    assert isinstance(axis, int)
    return np.concatenate(values, axis)


def _slice(node: onnx.NodeProto, values: list[Any]) -> object:
    data, starts, ends, *rest = values
    if data.ndim != 1 or len(starts) != 1:
        raise ValueError("only vectors are cut")
    step = rest[1][0] if len(rest) > 1 and rest[1] is not None else 1
    return data[int(starts[0]) : int(ends[0]) : int(step)]


_RULES: dict[str, Callable[[onnx.NodeProto, list[Any]], object]] = {
    "Identity": lambda node, values: values[0],
    "Cast": _cast,
    "Gather": _gather,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Slice": _slice,
    "Not": _elementwise(operator.not_),
    "And": _elementwise(lambda a, b: a and b),
    "Or": _elementwise(lambda a, b: a or b),
    "Xor": _elementwise(operator.xor),
    "Equal": _elementwise(operator.eq),
    "Greater": _elementwise(operator.gt),
    "GreaterOrEqual": _elementwise(operator.ge),
    "Less": _elementwise(operator.lt),
    "LessOrEqual": _elementwise(operator.le),
    "Add": _elementwise(operator.add),
    "Sub": _elementwise(operator.sub),
    "Mul": _elementwise(operator.mul),
    "Min": _elementwise(min),
    "Max": _elementwise(max),
}

"""A pruned model whose weights change while it is repaired: one copy, changed in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.arrays import Float64s
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.linear_operators import LinearOperator, linear_operators
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.weights import change_operands
from redtest_onnx.pruning.repair.equations import inverse_scale


class WorkingModel:
    """A copy of a model in which every linear operator has weights of its own, to be changed in place.

    Args:
        model: the model; not changed.

    Attributes:
        model: the copy.
        index: look-ups over it, which stay true whatever weights change.
        operators: its linear operators, in graph order.
    """

    def __init__(self, model: Model) -> None:
        self._source = model
        self._original_names: dict[tuple[int, int], str] = {}
        index = index_of(model)
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        for operator in linear_operators(model):
            for node, position in _operands(operator):
                name = model.graph.node[node].input[position]
                self._original_names[node, position] = name
                if len(index.value_readers(name)) > 1:
                    own = proto.graph.initializer.add()
                    own.CopyFrom(index.initializers[name])
                    own.name = f"{name}/{model.graph.node[node].output[0]}"
                    inputs = proto.graph.node[node].input
                    for k, read in enumerate(inputs):
                        inputs[k] = own.name if read == name else read
        self.model = model.edited(proto)
        self.index = index_of(self.model)
        self.operators = linear_operators(self.model)
        self._changed: set[tuple[int, int]] = set()

    def weight(self, operator: LinearOperator) -> npt.NDArray[Any]:
        """An operator's weights as they are now, in the layout of the file."""
        return self.model.value(operator.weight_of(self.model))

    def correct(self, operator: LinearOperator, weight: Float64s, bias: Float64s) -> None:
        """Put a correction [M, p] and [M] of the operator's target into its weights and bias."""
        stored = self.weight(operator)
        change = weight * inverse_scale(operator.scale)[:, None]
        if operator.kind != "Conv" and not operator.transposed:
            change = change.T
        with np.errstate(over="ignore"):
            self._store(*operator.weight, (stored + change.reshape(stored.shape)).astype(stored.dtype))
        constant = operator.bias_of(self.model)
        if operator.bias is not None and constant is not None:
            old: npt.NDArray[Any] = self.model.value(constant)
            share = (bias * inverse_scale(operator.bias_scale)).reshape(old.shape)
            with np.errstate(over="ignore"):
                self._store(*operator.bias, (old + share).astype(old.dtype))

    def result(self) -> Model:
        """The model given at first with all changes; operators that shared weights have their own now."""
        changes = {
            (node, self._original_names[node, position]): self.model.value(self._stored(node, position))
            for node, position in sorted(self._changed)
        }
        return change_operands(self._source, changes) if changes else self._source

    def _store(self, node: int, position: int, values: npt.NDArray[np.generic]) -> None:
        tensor = self._stored(node, position)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
        self._changed.add((node, position))

    def _stored(self, node: int, position: int) -> onnx.TensorProto:
        return self.model.initializers[self.model.graph.node[node].input[position]]


def shared_operators(model: Model) -> set[int]:
    """Nodes of the linear operators whose weights others read, too."""
    index = index_of(model)
    return {
        node
        for operator in linear_operators(model)
        for node, position in _operands(operator)
        if len(index.value_readers(model.graph.node[node].input[position])) > 1
    }


def _operands(operator: LinearOperator) -> list[tuple[int, int]]:
    """Nodes and positions of what a fit may change."""
    return [operator.weight, *([operator.bias] if operator.bias is not None else [])]

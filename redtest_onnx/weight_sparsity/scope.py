"""The names that one graph sees, its own and those around it, to follow operands back to what is stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import Model, subgraphs
from redtest_onnx.graph.shapes import FLOAT_TYPES

_DEQUANTIZE = {"DequantizeLinear", ops.MS + "DequantizeLinear"}
_QUANTIZE = {"QuantizeLinear", ops.MS + "QuantizeLinear"}
# They hand a tensor on as it is.
_MOVES = {"Transpose", "Unsqueeze", "Reshape"} | ops.CARRIERS | _DEQUANTIZE | _QUANTIZE


@dataclass(frozen=True)
class Source:
    """Where an operand comes from.

    Attributes:
        name: of the stored tensor.
        tensor: the stored tensor.
        view: sizes it is reshaped to.
        turned: axis of the view of each axis of the operand.
        dequantize: the DequantizeLinear in between, if any.
    """

    name: str
    tensor: onnx.TensorProto
    view: tuple[int, ...]
    turned: tuple[int, ...]
    dequantize: onnx.NodeProto | None


class Scope:
    """One graph of a model.

    Args:
        model: the model, which knows where its tensors lie.
        graph: the graph: a branch, or without it the main graph.
        outer: the graph around it.
    """

    def __init__(
        self, model: Model, graph: onnx.GraphProto | None = None, outer: Scope | None = None
    ) -> None:
        self._model = model
        graph = model.graph if graph is None else graph
        self.index = GraphIndex(graph, outer.input_dependent if outer else frozenset())
        self.input_dependent: frozenset[str] = self.index.input_dependent | (
            outer.input_dependent if outer else frozenset()
        )
        self._stored: dict[str, onnx.TensorProto] = dict(outer._stored) if outer else {}
        self._stored.update((tensor.name, tensor) for tensor in graph.initializer)
        self._producer: dict[str, onnx.NodeProto] = dict(outer._producer) if outer else {}
        for node in graph.node:
            self._producer.update((name, node) for name in node.output if name)
            value = ops.attribute(node, "value") if node.op_type == "Constant" else None
            if isinstance(value, onnx.TensorProto):
                # attribute() may copy; pruning writes into the file's own tensor.
                self._stored[node.output[0]] = next(a.t for a in node.attribute if a.name == "value")

    @property
    def children(self) -> list[Scope]:
        """The graphs directly inside."""
        return [Scope(self._model, child, self) for child in subgraphs(self.index.nodes)]

    def stored(self, name: str) -> onnx.TensorProto | None:
        """The stored tensor behind a name, also behind Identity and Cast."""
        while name and name not in self._stored:
            node = self._producer.get(name)
            if node is None or node.op_type not in ops.CARRIERS:
                return None
            name = node.input[0]
        return self._stored.get(name)

    def source(self, name: str) -> Source | None:
        """The stored tensor an operand is made of without a change of its values; None if there is none."""
        way: list[onnx.NodeProto] = []
        while name not in self._stored:
            node = self._producer.get(name)
            if node is None or ops.qualified(node) not in _MOVES:
                return None
            way.append(node)
            name = node.input[0]
        tensor = self._stored[name]
        view, turned = list(tensor.dims), list(range(len(tensor.dims)))
        dequantize: onnx.NodeProto | None = None
        for node in reversed(way):
            kind = ops.qualified(node)
            if kind in _DEQUANTIZE:
                if dequantize is None and (view != list(tensor.dims) or turned != sorted(turned)):
                    return None  # its axis is not one of the stored tensor's
                dequantize = dequantize or (None if tensor.data_type in FLOAT_TYPES else node)
            elif kind == "Transpose":
                permutation = ops.attribute(node, "perm", None)
                order = permutation if isinstance(permutation, list) else range(len(turned))[::-1]
                turned = [turned[axis] for axis in order]
            elif kind == "Unsqueeze":
                axes = self.numbers(node, "axes")
                if axes is None:
                    return None
                rank = len(turned) + len(axes)
                for axis in sorted(axis % rank for axis in axes):
                    turned.insert(axis, len(view))
                    view.append(1)
            elif kind == "Reshape":
                shape = self.numbers(node, "shape")
                if shape is None or turned != sorted(turned):
                    return None
                view = list(np.empty(view, np.bool_).reshape(_sizes(shape, view)).shape)
                turned = list(range(len(view)))
        return Source(name, tensor, tuple(view), tuple(turned), dequantize)

    def numbers(self, node: onnx.NodeProto, name: str) -> list[int] | None:
        """The stored integers of a node's attribute or second input."""
        value = ops.attribute(node, name)
        if isinstance(value, list):
            return value
        tensor = self.stored(node.input[1]) if len(node.input) > 1 else None
        return None if tensor is None else [int(number) for number in self._model.value(tensor).ravel()]

    def integer_scale(self, node: onnx.NodeProto) -> onnx.TensorProto | None:
        """The stored scale of an integer operator's weights: x -> Cast -> Mul by (scale of x times it)."""
        cast = self._only_reader(node.output[0], "Cast")
        product = self._only_reader(cast.output[0], "Mul") if cast is not None else None
        if cast is None or product is None:
            return None
        factor = next(name for name in product.input if name != cast.output[0])
        if (stored := self.stored(factor)) is not None:
            return stored
        maker = self._producer.get(factor)
        if maker is None or maker.op_type != "Mul":
            return None
        return next(filter(None, map(self.stored, maker.input)), None)

    def _only_reader(self, name: str, kind: str) -> onnx.NodeProto | None:
        readers = [self.index.nodes[i] for i in self.index.readers.get(name, ())]
        return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None


def _sizes(shape: list[int], before: list[int]) -> list[int]:
    """The sizes a Reshape asks for, where 0 stands for the size before."""
    return [before[k] if size == 0 else size for k, size in enumerate(shape)]

"""Weights that Constant nodes hold, as in files of Paddle's exporter, seen as initializers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import reads
from redtest_onnx.graph.model import Model

_SIZES = frozenset(
    {onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL, onnx.TensorProto.STRING}
)


@dataclass(frozen=True)
class LiftedWeights:
    """Constant nodes that became initializers.

    Attributes:
        nodes: each as it was, but without its value, by the tensor it makes.
    """

    nodes: dict[str, onnx.NodeProto]

    def undo(self, edited: Model) -> Model:
        """The edited model with those weights that are left in Constant nodes, before what reads them."""
        proto = onnx.ModelProto()
        proto.CopyFrom(edited.proto)
        graph = proto.graph
        stored = {tensor.name: tensor for tensor in graph.initializer if tensor.name in self.nodes}
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            nodes.extend(self._made(stored, reads(node)))
            nodes.append(node)
        nodes.extend(self._made(stored, [*stored]))
        kept = [tensor for tensor in graph.initializer if tensor.name not in self.nodes]
        inputs = [info for info in graph.input if info.name not in self.nodes]  # before IR version 4
        del graph.node[:], graph.initializer[:], graph.input[:]
        graph.node.extend(nodes)
        graph.initializer.extend(kept)
        graph.input.extend(inputs)
        return edited.edited(proto)

    def _made(self, stored: dict[str, onnx.TensorProto], names: Iterable[str]) -> Iterator[onnx.NodeProto]:
        for name in names:
            if (tensor := stored.pop(name, None)) is not None:
                node = onnx.NodeProto()
                node.CopyFrom(self.nodes[name])
                node.attribute.append(onnx.helper.make_attribute("value", tensor))
                yield node


def lift_weights(model: Model) -> tuple[Model, LiftedWeights | None]:
    """A model with its weights in initializers, and how to undo that; the same if no Constant node holds any.

    All constants but sizes, flags and texts count as weights then: biases and scales are among them.
    """
    made = {node.output[0]: value for node in model.graph.node if (value := _value(node)) is not None}
    weights = (made.get(name) for node in model.graph.node for name in _weights(node))
    if not any(value is not None and len(value.dims) > 1 for value in weights):
        return model, None
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    nodes, lifted = [], {}
    for node in proto.graph.node:
        tensor = _value(node)
        if tensor is None:
            nodes.append(node)
            continue
        name = node.output[0]
        proto.graph.initializer.append(tensor)
        proto.graph.initializer[-1].name = name
        lifted[name] = onnx.NodeProto()
        lifted[name].CopyFrom(node)
        del lifted[name].attribute[:]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return model.edited(proto), LiftedWeights(lifted)


def _value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """What a Constant node holds that can be a weight."""
    value = ops.attribute(node, "value") if ops.qualified(node) == "Constant" else None
    return value if isinstance(value, onnx.TensorProto) and value.data_type not in _SIZES else None


def _weights(node: onnx.NodeProto) -> list[str]:
    """What a node reads where weights can stand."""
    kind = ops.qualified(node)
    places = () if kind in ops.TABLES else ops.WEIGHT_INPUTS.get(kind, ())
    if kind == "DequantizeLinear":
        places = (0,)
    return [node.input[place] for place in places if place < len(node.input)]

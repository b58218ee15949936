"""The tensors a model stores, in subgraphs too, each under a name of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx

from redtest_onnx.graph.model import subgraphs


@dataclass(frozen=True)
class StoredTensor:
    """A tensor stored in a graph: an initializer, or the value of a Constant node.

    Attributes:
        name: unique in the model; differs from `local` where sibling branches use one name twice.
        local: its name inside `graph`.
        graph: the graph that holds it.
        tensor: the values.
        node: the Constant node; None for an initializer.
    """

    name: str
    local: str
    graph: onnx.GraphProto
    tensor: onnx.TensorProto
    node: onnx.NodeProto | None = None

    @property
    def writable(self) -> bool:
        """Whether `tensor` is the file's own, so that values written to it are kept."""
        return self.node is None or self.node.attribute[0].name == "value"


def stored_tensors(graph: onnx.GraphProto, taken: Collection[str] = ()) -> dict[str, StoredTensor]:
    """All stored tensors of a graph and its subgraphs by unique name, outermost first.

    Constants without a tensor attribute (single numbers, lists) are included; their `tensor` is a copy.

    Args:
        graph: the graph.
        taken: names that are in use already.
    """
    found: dict[str, StoredTensor] = {}
    for item in _walk(graph):
        name, count = item.local, 1
        while name in found or name in taken:
            count += 1
            name = f"{item.local}#{count}"
        found[name] = StoredTensor(name, item.local, item.graph, item.tensor, item.node)
    return found


def is_constant(node: onnx.NodeProto) -> bool:
    """Whether a node is a Constant."""
    return node.op_type == "Constant" and node.domain in ("", "ai.onnx")


def _walk(graph: onnx.GraphProto) -> Iterator[StoredTensor]:
    for tensor in graph.initializer:
        yield StoredTensor(tensor.name, tensor.name, graph, tensor)
    for node in graph.node:
        if is_constant(node) and (value := _constant_value(node)) is not None:
            yield StoredTensor(node.output[0], node.output[0], graph, value, node)
        for child in subgraphs([node]):
            yield from _walk(child)


def _constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor of a Constant node; None for text and sparse values."""
    attribute = node.attribute[0]
    if attribute.name == "value":
        return attribute.t
    make = onnx.helper.make_tensor
    match attribute.name:
        case "value_float":
            return make("", onnx.TensorProto.FLOAT, (), [attribute.f])
        case "value_floats":
            return make("", onnx.TensorProto.FLOAT, (len(attribute.floats),), attribute.floats)
        case "value_int":
            return make("", onnx.TensorProto.INT64, (), [attribute.i])
        case "value_ints":
            return make("", onnx.TensorProto.INT64, (len(attribute.ints),), attribute.ints)
    return None

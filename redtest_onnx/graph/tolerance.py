"""What ONNX Runtime takes and ONNX's checker does not: nodes out of order, values without shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import onnx

from redtest_onnx.graph.index import reads
from redtest_onnx.graph.model import Model


def tolerate(model: Model) -> tuple[Model, list[str]]:
    """A model in the form that all stages rely on, with the same meaning.

    Nodes are sorted into an order in which they can run, a graph without a name gets one, and outputs without
    a type get the one that inference finds.

    Args:
        model: the model as it was read; not changed.

    Returns:
        The model itself where nothing is amiss, and what was, in words.
    """
    graph = model.graph
    named = bool(graph.name) or not graph.node
    if named and all(map(_typed, graph.output)) and _order(graph) is None:
        return model, []
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    notes = list(_mended(proto))
    return replace(model, proto=proto), notes


def with_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model as a check without inference wants it: inputs and outputs without a shape get one.

    The model itself where none is missing; its ranks mean nothing otherwise.
    """
    if not any(_shapeless(value) for value in (*proto.graph.input, *proto.graph.output)):
        return proto
    checked = onnx.ModelProto()
    checked.CopyFrom(proto)
    for value in (*checked.graph.input, *checked.graph.output):
        if _shapeless(value):
            value.type.tensor_type.shape.SetInParent()
    return checked


def with_inferred_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model as a full check wants it: outputs without a shape get the inferred one, or are left out."""
    if not any(_shapeless(value) for value in proto.graph.output):
        return proto
    checked = onnx.ModelProto()
    checked.CopyFrom(proto)
    for value, found in zip(
        checked.graph.output, onnx.shape_inference.infer_shapes(proto).graph.output, strict=True
    ):
        if _shapeless(value) and not _shapeless(found):
            value.CopyFrom(found)
    kept = [value for value in checked.graph.output if not _shapeless(value)]
    if len(kept) < len(checked.graph.output) and kept:
        known = list(map(_copied, kept))
        del checked.graph.output[:]
        checked.graph.output.extend(known)
    return checked if kept else with_shapes(proto)


def _mended(proto: onnx.ModelProto) -> Iterator[str]:
    graph = proto.graph
    if not graph.name and graph.node:
        graph.name = "graph"
        yield "its graph has no name"
    if not all(map(_typed, graph.output)):
        try:
            inferred = onnx.shape_inference.infer_shapes(proto)
        except (onnx.shape_inference.InferenceError, ValueError):
            return
        for value, found in zip(graph.output, inferred.graph.output, strict=True):
            if not _typed(value) and found.type.WhichOneof("value") is not None:
                value.type.CopyFrom(found.type)
                yield f"its output {value.name!r} declares no type"
    if (order := _order(graph)) is not None:
        nodes = [_copied_node(graph.node[k]) for k in order]
        del graph.node[:]
        graph.node.extend(nodes)
        yield "its nodes are not in an order in which they can run"


def _order(graph: onnx.GraphProto) -> list[int] | None:
    """An order in which the nodes can run, near the given one; None if they can, or never can."""
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    edges = [(makers[name], i) for i, node in enumerate(graph.node) for name in reads(node) if name in makers]
    if all(maker < reader for maker, reader in edges):
        return None
    import networkx as nx  # which few models need, and whose import takes longer than all of this

    flow: nx.DiGraph[int] = nx.DiGraph()
    flow.add_nodes_from(range(len(graph.node)))
    flow.add_edges_from(edges)
    if not nx.is_directed_acyclic_graph(flow):
        return None
    return list(nx.lexicographical_topological_sort(flow))


def _typed(value: onnx.ValueInfoProto) -> bool:
    return value.type.WhichOneof("value") is not None


def _shapeless(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    return value.type.HasField("tensor_type") and bool(tensor.elem_type) and not tensor.HasField("shape")


def _copied(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    copied = onnx.ValueInfoProto()
    copied.CopyFrom(value)
    return copied


def _copied_node(node: onnx.NodeProto) -> onnx.NodeProto:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    return copied

"""A model without some of its layers, just to be run: names are rewired, and only what is left is copied."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.model import Model


def bypassed(model: Model, stand_ins: Mapping[str, str]) -> Model | None:
    """The model in which readers of some tensors read others instead.

    What `surgery.remove_regions` writes for regions without adapters, built from the nodes that are left:
    nothing that goes is copied and no graph is imported, which takes a fraction of the time. Metadata stay
    behind: the result is for measuring, not for saving.

    Args:
        model: the model; not changed.
        stand_ins: tensors by those that take their place, in the order of the graph.

    Returns:
        The model, or None where only surgery can do it: a subgraph reads one of the tensors.
    """
    index = index_of(model)
    source: dict[str, str] = {}
    for tensor, entry in stand_ins.items():
        source[tensor] = source.get(entry, entry)
    needed: set[int] = set()
    read: set[str] = set()
    stack = [source.get(name, name) for name in index.outputs]
    while stack:
        name = stack.pop()
        if name in read:
            continue
        read.add(name)
        made_by = index.producer.get(name)
        if made_by is None or made_by in needed:
            continue
        needed.add(made_by)
        captured = set(index.reads[made_by]).difference(index.nodes[made_by].input)
        if not captured.isdisjoint(source):
            return None
        stack.extend(source.get(other, other) for other in index.reads[made_by])
    proto = onnx.ModelProto(ir_version=model.proto.ir_version)
    proto.opset_import.extend(model.proto.opset_import)
    proto.functions.extend(model.proto.functions)
    graph = proto.graph
    graph.name = model.graph.name or "graph"
    for i in sorted(needed):
        node = graph.node.add()
        node.CopyFrom(index.nodes[i])
        if not source.keys().isdisjoint(node.input):
            names = [source.get(name, name) for name in node.input]
            del node.input[:]
            node.input.extend(names)
    graph.node.extend(
        onnx.helper.make_node("Identity", [source[name]], [name]) for name in index.outputs if name in source
    )
    graph.initializer.extend(tensor for name, tensor in index.initializers.items() if name in read)
    graph.sparse_initializer.extend(t for t in model.graph.sparse_initializer if t.values.name in read)
    graph.input.extend(v for v in model.graph.input if v.name in read or v.name not in index.initializers)
    graph.output.extend(model.graph.output)
    return model.edited(proto)

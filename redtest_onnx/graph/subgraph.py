"""Parts of a graph as models of their own, to run from inner tensors instead of from the inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx

from redtest_onnx.graph.index import GraphIndex, index_of
from redtest_onnx.graph.model import Model, subgraphs
from redtest_onnx.graph.weights_file import model_of


def live(index: GraphIndex, node: int) -> tuple[str, ...]:
    """Tensors fed or made before a node that it or a later one reads: all the rest of the graph needs.

    Not those that are stored or handed on from what is stored: a fit may have changed it since.
    """
    made_later = {name for later in index.nodes[node:] for name in later.output}
    wanted = dict.fromkeys(name for reads in index.reads[node:] for name in reads)
    wanted.update(dict.fromkeys(index.outputs))
    known = made_later.union(index.initializers, index.handed_on)
    return tuple(name for name in wanted if name not in known)


_RESHAPE_BY_TENSOR = 5  # operator set since when Reshape reads its shape


@dataclass(frozen=True)
class Fence:
    """Tensors whose readers from some node on read copies of them, across which nothing is optimised.

    ONNX Runtime fuses operators and lays tensors out in blocks, which changes last bits. On both sides of a
    fence it optimises as if the tensors had been computed before and fed.

    Attributes:
        names: the tensors.
        node: the first node that reads the copies.
    """

    names: tuple[str, ...] = ()
    node: int = 0

    @classmethod
    def at(cls, model: Model, node: int) -> Fence | None:
        """Between a node and what it and later ones read; None where a copy can't be made of all that."""
        index = index_of(model)
        lists = any(word in op.op_type for op in index.nodes for word in ("Sequence", "Optional"))
        inner = any(True for _ in subgraphs(index.nodes[node:]))
        if lists or inner or model.opsets.get("ai.onnx", 0) < _RESHAPE_BY_TENSOR:
            return None
        return cls(live(index, node), node)


def segment(
    model: Model, outputs: Iterable[str], given: Mapping[str, int], fence: Fence | None = None
) -> Model:
    """The part of a model that computes tensors from others and, where those don't do, from its inputs.

    Args:
        model: the model; not changed.
        outputs: tensors to compute, none of them given.
        given: ONNX element types of the tensors that will be fed.
        fence: tensors that are computed, where what lies behind is optimised as if they were given.

    Returns:
        A model whose inputs are those of `given`, and of the model's own inputs, that it reads.
    """
    index, outputs = index_of(model), tuple(outputs)
    needed: set[int] = set()
    read: set[str] = set()
    stack = list(outputs)
    while stack:
        name = stack.pop()
        if name in read:
            continue
        read.add(name)
        node = index.producer.get(name)
        if name in given or node is None or node in needed:
            continue
        needed.add(node)
        stack.extend(index.reads[node])
    proto = onnx.ModelProto(ir_version=model.proto.ir_version)
    proto.opset_import.extend(model.proto.opset_import)
    proto.functions.extend(model.proto.functions)
    graph = proto.graph
    graph.name = "segment"
    _extend(graph, index, sorted(needed), fence or Fence())
    graph.sparse_initializer.extend(t for t in model.graph.sparse_initializer if t.values.name in read)
    declared = {info.name: info for info in model.graph.input if info.name not in index.initializers}
    for name in sorted(read - set(outputs)):
        if name in given:
            graph.input.append(onnx.helper.make_tensor_value_info(name, given[name], None))
        elif name in declared:
            graph.input.append(declared[name])
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return model_of(model, proto, (tensor for name, tensor in index.initializers.items() if name in read))


def _extend(graph: onnx.GraphProto, index: GraphIndex, needed: list[int], fence: Fence) -> None:
    """Add nodes in their order, with copies of what is fenced in front of the first that reads it."""
    made = {name for i in needed for name in index.nodes[i].output}
    copies = {name: f"{name}/copy" for name in fence.names if name in made}
    missing = dict(copies)
    for i in needed:
        node = onnx.NodeProto()
        node.CopyFrom(index.nodes[i])
        for name in node.input if i >= fence.node else ():
            if copy := missing.pop(name, None):
                # Into its own shape: a copy that no optimisation takes away.
                graph.node.append(onnx.helper.make_node("Shape", [name], [f"{copy}/shape"]))
                graph.node.append(onnx.helper.make_node("Reshape", [name, f"{copy}/shape"], [copy]))
        if i >= fence.node:
            node.input[:] = [copies.get(name, name) for name in node.input]
        graph.node.append(node)

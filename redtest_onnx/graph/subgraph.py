"""Parts of a graph as models of their own, to run from inner tensors instead of from the inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from redtest_onnx.graph.index import GraphIndex, index_of
from redtest_onnx.graph.model import Model


def live(index: GraphIndex, node: int) -> tuple[str, ...]:
    """Tensors fed or made before a node that it or a later one reads: all the rest of the graph needs."""
    made_later = {name for later in index.nodes[node:] for name in later.output}
    wanted = dict.fromkeys(name for reads in index.reads[node:] for name in reads)
    wanted.update(dict.fromkeys(index.outputs))
    return tuple(name for name in wanted if name not in made_later and name not in index.initializers)


def segment(model: Model, outputs: Iterable[str], given: Mapping[str, int]) -> Model:
    """The part of a model that computes tensors from others and, where those don't do, from its inputs.

    Args:
        model: the model; not changed.
        outputs: tensors to compute, none of them given.
        given: ONNX element types of the tensors that will be fed.

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
    graph.node.extend(index.nodes[i] for i in sorted(needed))
    graph.initializer.extend(tensor for name, tensor in index.initializers.items() if name in read)
    graph.sparse_initializer.extend(t for t in model.graph.sparse_initializer if t.values.name in read)
    declared = {info.name: info for info in model.graph.input if info.name not in index.initializers}
    for name in sorted(read - set(outputs)):
        if name in given:
            graph.input.append(onnx.helper.make_tensor_value_info(name, given[name], None))
        elif name in declared:
            graph.input.append(declared[name])
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return model.edited(proto)

"""Read sizes where they come from: at the inputs, not in the middle of a layer.

Exporters read the batch or the length of a sequence off whatever tensor is at hand, often one inside the first
layer, and use it in all others. Then that layer seems to be needed although only its sizes are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import Shapes

_SAME_SHAPE = ops.ACTIVATION | ops.NORMALISATION | frozenset(
    {"Neg", "Abs", "Sqrt", "Reciprocal", "Exp", "Log", "Identity", "Dropout", "Cast", "Softmax", "Sign"}
    | {ops.MS + "RotaryEmbedding", ops.MS + "BiasGelu", "Not"}
)
_BROADCAST = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Where", "Min", "Max"})
_ROWS = frozenset({"MatMul", "MatMulInteger", ops.MS + "MatMulNBits", ops.MS + "FusedMatMul"})
_MARK = "/at_its_source"


@dataclass(frozen=True)
class MovedSizes:
    """Size readings that were moved.

    Attributes:
        originals: the nodes as they were, by the size they give.
        made: tensors of the new nodes, by the size they give.
    """

    originals: Mapping[str, onnx.NodeProto]
    made: Mapping[str, frozenset[str]]
    shapes: Mapping[str, onnx.NodeProto] = field(default_factory=dict)

    def undo(self, edited: Model) -> Model:
        """The edited model with each size read where it was, if that tensor is still there."""
        proto = onnx.ModelProto()
        proto.CopyFrom(edited.proto)
        graph = proto.graph
        there = {name for node in graph.node for name in node.output}
        ready = there | {value.name for value in graph.input}
        dropped: set[str] = set()
        back: dict[str, list[onnx.NodeProto]] = {}
        for name, node in self.originals.items():
            shape = self.shapes[node.input[0]]
            index = node.input[1]
            stored = {tensor.name for tensor in graph.initializer}
            if name not in there or shape.input[0] not in ready or not {index} <= ready | stored:
                continue
            dropped |= self.made[name]
            back[name] = [] if node.input[0] in there else [shape]
            there.add(node.input[0])
            back[name].append(node)
        nodes = []
        for node in graph.node:
            if node.output and node.output[0] in back:
                nodes.extend(back[node.output[0]])
            elif not dropped.issuperset(node.output) or not node.output:
                nodes.append(node)
        del graph.node[:]
        graph.node.extend(_sorted(nodes))
        return edited.edited(proto)


def move_sizes(model: Model, shapes: Shapes | None = None) -> tuple[Model, MovedSizes | None]:
    """A model that reads single sizes of activations where these sizes come from.

    Moved are `Gather(Shape(x), k)` with one constant k, as far as axis k of x keeps its size through
    operators whose semantics say so: elementwise functions, norms, products with weights, transpositions,
    look-ups in a table, and what is appended to a cache.
    """
    index = GraphIndex(model.graph)
    candidates = [
        node
        for node in index.nodes
        if ops.qualified(node) == "Gather" and _reads_activation_size(index, node)
    ]
    originals: dict[str, onnx.NodeProto] = {}
    made: dict[str, frozenset[str]] = {}
    new: dict[str, list[onnx.NodeProto]] = {}
    shape_nodes: dict[str, onnx.NodeProto] = {}
    for node in candidates:
        shape = index.nodes[index.producer[node.input[0]]]
        start = ops.attribute(shape, "start", 0)
        position = _constant(model, index, node.input[1])
        if start or position is None or position.size != 1 or int(position.item()) < 0:
            continue
        found = _source(model, index, shape.input[0], int(position.item()))
        if found is None or found == [(shape.input[0], int(position.item()))]:
            continue
        name = node.output[0]
        nodes = _written(name, found, position.ndim)
        originals[name], shape_nodes[node.input[0]] = node, shape
        made[name] = frozenset(made_name for n in nodes for made_name in n.output) - {name}
        new[name] = nodes
    if not new:
        return model, None
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    kept = []
    for node in index.nodes:
        kept.extend(new.get(node.output[0], [node]) if node.output else [node])
    read = {name for node in kept for name in _reads(node)} | set(index.outputs)
    kept = [n for n in kept if ops.qualified(n) != "Shape" or n.output[0] in read or n.output[0] not in shape_nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(_sorted(kept))
    return model.edited(proto), MovedSizes(originals, made, shape_nodes)


def _reads(node: onnx.NodeProto) -> list[str]:
    from redtest_onnx.graph.index import reads

    return list(reads(node))


def _reads_activation_size(index: GraphIndex, node: onnx.NodeProto) -> bool:
    producer = index.producer.get(node.input[0])
    if producer is None or ops.qualified(index.nodes[producer]) != "Shape":
        return False
    return index.nodes[producer].input[0] in index.activations


def _constant(model: Model, index: GraphIndex, name: str) -> np.ndarray | None:
    if (tensor := index.initializers.get(name)) is not None:
        return model.value(tensor) if sum(tensor.dims) <= 64 else None
    producer = index.producer.get(name)
    if producer is None or index.nodes[producer].op_type != "Constant":
        return None
    value = ops.attribute(index.nodes[producer], "value")
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    single = ops.attribute(index.nodes[producer], "value_int")
    return None if single is None else np.array(single)


def _source(model: Model, index: GraphIndex, name: str, axis: int) -> list[tuple[str, int]] | None:
    """Tensors and axes whose sizes add up to the size of one axis; None where that can't be told."""
    while True:
        producer = index.producer.get(name)
        if producer is None or name not in index.activations:
            return [(name, axis)]
        node = index.nodes[producer]
        step = _step(model, index, node, name, axis)
        if step is None:
            return [(name, axis)]
        if len(step) == 1:
            name, axis = step[0]
            continue
        parts: list[tuple[str, int]] = []
        for part, part_axis in step:
            parts.extend(_source(model, index, part, part_axis) or [])
        return parts


def _step(
    model: Model, index: GraphIndex, node: onnx.NodeProto, name: str, axis: int
) -> list[tuple[str, int]] | None:
    """Where an axis of a node's result has its size from; None where the operator doesn't tell."""
    kind = ops.qualified(node)
    data = node.input[0]
    if kind in _SAME_SHAPE and name == node.output[0]:
        return [(data, axis)]
    if kind in _BROADCAST:
        # One activation and constants that are no larger than it, as a bias is.
        inputs = list(dict.fromkeys(read for read in node.input if read in index.activations))
        stored = [index.initializers.get(read) for read in node.input if read not in index.activations]
        small = all(tensor is not None and len(tensor.dims) <= 1 for tensor in stored)
        return [(inputs[0], axis)] if len(inputs) == 1 and small and axis < 2 else None
    if kind in _ROWS and axis == 1 and _is_matrix(index, node):
        return [(data, axis)]
    if kind in _ROWS and axis == 0 and _is_matrix(index, node):
        return [(data, axis)]
    if kind == "Transpose":
        perm = ops.attribute(node, "perm")
        return [(data, int(perm[axis]))] if isinstance(perm, list) else None
    if kind == "Gather" and data in index.initializers and ops.attribute(node, "axis", 0) == 0:
        return [(node.input[1], axis)] if axis < 2 and len(index.initializers[data].dims) == 2 else None
    if kind == "Concat":
        concat = ops.attribute(node, "axis")
        if not isinstance(concat, int) or concat < 0:
            return None
        return [(read, axis) for read in node.input] if concat == axis else [(data, axis)]
    if kind == "Reshape":
        return _reshaped(model, index, node, axis)
    if kind == "Unsqueeze" or kind == "Squeeze":
        return None
    return None


def _is_matrix(index: GraphIndex, node: onnx.NodeProto) -> bool:
    tensor = index.initializers.get(node.input[1])
    return tensor is not None


def _reshaped(model: Model, index: GraphIndex, node: onnx.NodeProto, axis: int) -> list[tuple[str, int]] | None:
    """Where a reshape copies an axis (0 in its sizes), or takes it from a size of another tensor."""
    sizes = _constant(model, index, node.input[1])
    if sizes is not None:
        zero = axis < sizes.size and sizes.reshape(-1)[axis] == 0 and not ops.attribute(node, "allowzero", 0)
        return [(node.input[0], axis)] if zero else None
    producer = index.producer.get(node.input[1])
    concat = index.nodes[producer] if producer is not None else None
    if concat is None or concat.op_type != "Concat" or axis >= len(concat.input):
        return None
    part = index.producer.get(concat.input[axis])
    unsqueeze = index.nodes[part] if part is not None else None
    if unsqueeze is None:
        return None
    gather_name = unsqueeze.input[0] if unsqueeze.op_type in ("Unsqueeze", "Reshape") else concat.input[axis]
    gather = index.producer.get(gather_name)
    if gather is None or ops.qualified(index.nodes[gather]) != "Gather":
        return None
    shape = index.producer.get(index.nodes[gather].input[0])
    position = _constant(model, index, index.nodes[gather].input[1])
    if shape is None or index.nodes[shape].op_type != "Shape" or position is None or position.size != 1:
        return None
    return [(index.nodes[shape].input[0], int(position.item()))] if position.item() >= 0 else None


def _written(name: str, sources: list[tuple[str, int]], rank: int) -> list[onnx.NodeProto]:
    """Nodes that add up sizes, the last of which gives `name`."""
    nodes, terms = [], []
    for k, (tensor, axis) in enumerate(sources):
        base = f"{name}{_MARK}{k}"
        constant = numpy_helper.from_array(np.full((1,) * rank, axis, np.int64))
        terms.append(f"{base}/size")
        nodes += [
            helper.make_node("Shape", [tensor], [f"{base}/shape"], name=f"{base}/shape".replace("/", ".")),
            helper.make_node("Constant", [], [f"{base}/axis"], name=f"{base}/axis".replace("/", "."), value=constant),
            helper.make_node(
                "Gather", [f"{base}/shape", f"{base}/axis"], [terms[-1]], name=f"{base}/size".replace("/", ".")
            ),
        ]
    for k in range(1, len(terms)):
        total = f"{name}{_MARK}{k}/total"
        nodes.append(helper.make_node("Add", [terms[0], terms[k]], [total], name=total.replace("/", ".")))
        terms[0] = total
    nodes[-1].output[0] = name
    return nodes


def _sorted(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes in an order in which they can run, as they stand where that is possible."""
    makers = {name: node for node in nodes for name in node.output if name}
    done: set[int] = set()
    found: list[onnx.NodeProto] = []
    for start in nodes:
        stack = [start]
        while stack:
            node = stack[-1]
            if id(node) in done:
                stack.pop()
                continue
            waiting = [makers[n] for n in _reads(node) if n in makers and id(makers[n]) not in done]
            if waiting:
                stack.extend(waiting)
                continue
            done.add(id(node))
            found.append(node)
            stack.pop()
    return found

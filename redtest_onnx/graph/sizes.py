"""Read sizes where they come from: at the inputs, not in the middle of a layer.

Exporters read the batch or the length of a sequence off whatever tensor is at hand, often one inside the
first layer, and use it in all others. Then that layer seems to be needed although only its sizes are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex, index_of, reads
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.size_origins import Size, SizeOrigins, constant

_MARK = "/at_its_source"


@dataclass(frozen=True)
class MovedSizes:
    """Size readings that were moved.

    Attributes:
        originals: the nodes as they were, by the size they give.
        made: tensors of the new nodes, by the size they give.
        dropped: nodes that nothing else needs, by what they give.
    """

    originals: Mapping[str, onnx.NodeProto]
    made: Mapping[str, frozenset[str]]
    dropped: Mapping[str, onnx.NodeProto]

    def undo(self, edited: Model) -> Model:
        """The edited model with each size read where it was, if that tensor is still there."""
        proto = onnx.ModelProto()
        proto.CopyFrom(edited.proto)
        graph = proto.graph
        there = {name for node in graph.node for name in node.output}
        ready = there | {v.name for v in graph.input} | {t.name for t in graph.initializer}
        gone: set[str] = set()
        back: dict[str, list[onnx.NodeProto]] = {}
        for name, node in self.originals.items():
            behind = self._behind(node, ready)
            if name in there and behind is not None:
                gone |= self.made[name]
                back[name] = [*behind, node]
                ready.update(made for again in behind for made in again.output)
        nodes = []
        for node in graph.node:
            if node.output and node.output[0] in back:
                nodes.extend(back[node.output[0]])
            elif not gone.issuperset(node.output) or not node.output:
                nodes.append(node)
        del graph.node[:]
        graph.node.extend(_sorted(nodes))
        return edited.edited(proto)

    def _behind(self, node: onnx.NodeProto, ready: set[str]) -> list[onnx.NodeProto] | None:
        """Dropped nodes that a node needs, in order; None where something they need is gone for good."""
        found: list[onnx.NodeProto] = []
        for name in node.input:
            if not name or name in ready or any(name in other.output for other in found):
                continue
            maker = self.dropped.get(name)
            before = None if maker is None else self._behind(maker, ready)
            if maker is None or before is None:
                return None
            found += [*(other for other in before if other not in found), maker]
        return found


def move_sizes(model: Model) -> tuple[Model, MovedSizes | None]:
    """A model that reads single sizes of activations where these sizes come from.

    Moved are `Gather(Shape(x), k)` with one constant k, as far as axis k of x keeps its size through
    operators whose semantics say so: elementwise functions, norms, products with weights, transpositions,
    look-ups in a table, and what is appended to a cache.
    """
    index = index_of(model)
    candidates = [
        node
        for node in index.nodes
        if ops.qualified(node) == "Gather" and _reads_activation_size(index, node)
    ]
    originals: dict[str, onnx.NodeProto] = {}
    made: dict[str, frozenset[str]] = {}
    new: dict[str, list[onnx.NodeProto]] = {}
    shape_names: list[str] = []
    origins: SizeOrigins | None = None
    for node in candidates:
        shape = index.nodes[index.producer[node.input[0]]]
        start = ops.attribute(shape, "start", 0)
        position = constant(model, index, node.input[1])
        if start or position is None or position.size != 1:
            continue
        origins = origins or SizeOrigins(model, index)
        axis = origins.axis(shape.input[0], int(position.item()))
        if axis is None:
            continue
        own = (shape.input[0], axis)
        found = origins.of(*own)
        if found == (own,) or any(name in index.activations for name, _ in found):
            continue  # an origin inside another layer would tie that one instead
        name = node.output[0]
        nodes = _written(name, found, position.ndim)
        originals[name] = node
        shape_names += node.input
        made[name] = frozenset(made_name for n in nodes for made_name in n.output) - {name}
        new[name] = nodes
    if not new:
        return model, None
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    kept = []
    for node in index.nodes:
        kept.extend(new.get(node.output[0], [node]) if node.output else [node])
    kept, dropped = _without_idle(kept, list(index.outputs), set(shape_names))
    del proto.graph.node[:]
    proto.graph.node.extend(_sorted(kept))
    return model.edited(proto), MovedSizes(originals, made, dropped)


def _without_idle(
    nodes: list[onnx.NodeProto], outputs: list[str], suspects: set[str]
) -> tuple[list[onnx.NodeProto], dict[str, onnx.NodeProto]]:
    """The nodes without those that led to some sizes and to nothing else, and these by what they give."""
    counts = Counter(name for node in nodes for name in reads(node))
    counts.update(outputs)
    makers = {name: node for node in nodes for name in node.output if name}
    stack, idle = [name for name in suspects if name in makers], set()
    dropped: dict[str, onnx.NodeProto] = {}
    while stack:
        node = makers[stack.pop()]
        if id(node) in idle or any(counts[name] for name in node.output):
            continue
        idle.add(id(node))
        dropped.update((name, node) for name in node.output if name)
        for name in reads(node):
            counts[name] -= 1
            if name in makers:
                stack.append(name)
    return [node for node in nodes if id(node) not in idle], dropped


def _reads_activation_size(index: GraphIndex, node: onnx.NodeProto) -> bool:
    producer = index.producer.get(node.input[0])
    if producer is None or ops.qualified(index.nodes[producer]) != "Shape":
        return False
    return index.nodes[producer].input[0] in index.activations


def _written(name: str, sources: Size, rank: int) -> list[onnx.NodeProto]:
    """Nodes that add up sizes, the last of which gives `name`."""
    nodes, terms = [], []
    for k, (tensor, axis) in enumerate(sources):
        base = f"{name}{_MARK}{k}"
        constant = numpy_helper.from_array(np.full((1,) * rank, axis, np.int64))
        terms.append(f"{base}/size")
        nodes += [
            helper.make_node("Shape", [tensor], [f"{base}/shape"], name=f"{base}/shape".replace("/", ".")),
            helper.make_node(
                "Constant", [], [f"{base}/axis"], name=f"{base}/axis".replace("/", "."), value=constant
            ),
            helper.make_node(
                "Gather",
                [f"{base}/shape", f"{base}/axis"],
                [terms[-1]],
                name=f"{base}/size".replace("/", "."),
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
            waiting = [makers[n] for n in reads(node) if n in makers and id(makers[n]) not in done]
            if waiting:
                stack.extend(waiting)
                continue
            done.add(id(node))
            found.append(node)
            stack.pop()
    return found

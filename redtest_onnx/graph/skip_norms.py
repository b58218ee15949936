"""Fused skip norms seen as the sum and the norm they are, and fused again in what is written.

SkipLayerNormalization and SkipSimplifiedLayerNormalization give the norm of a sum and the sum at once, so
that no single tensor would separate the block in front of them from the one behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import helper

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import Model

_NORM = {
    ops.MS + "SkipLayerNormalization": "LayerNormalization",
    ops.MS + "SkipSimplifiedLayerNormalization": "SimplifiedLayerNormalization",
}
_EPSILON = 1e-5
_SUM = 3  # the output that gives the sum


@dataclass(frozen=True)
class SplitNorm:
    """A fused skip norm and what stands in its place.

    Attributes:
        fused: the node as it was.
        total: the sum that the norm reads.
        biased: the sum without the fused bias; the same as `total` where there is none.
        normed: the norm's result.
    """

    fused: onnx.NodeProto
    total: str
    biased: str
    normed: str


@dataclass(frozen=True)
class SplitNorms:
    """The skip norms of a model that were split.

    Attributes:
        norms: each of them, by the sum and by the norm it was split into.
    """

    norms: tuple[SplitNorm, ...]

    def undo(self, edited: Model) -> Model:
        """The edited model with each sum fused with a norm that reads it.

        A norm that no longer has a sum in front of it, as the first one after removing the first block, stays
        a norm of its own; so does a sum without one.
        """
        proto = onnx.ModelProto()
        proto.CopyFrom(edited.proto)
        index = GraphIndex(proto.graph)
        by_sum = {norm.total: norm for norm in self.norms}
        by_norm = {norm.normed: norm for norm in self.norms}
        replaced: dict[int, onnx.NodeProto | None] = {}
        for i, node in enumerate(index.nodes):
            norm = by_norm.get(node.output[0]) if node.output else None
            added = by_sum.get(node.input[0]) if norm else None
            if norm is None or added is None or node.op_type != _NORM[ops.qualified(norm.fused)]:
                continue
            first, last = index.producer.get(added.biased), index.producer.get(added.total)
            if first is None or last is None or last in replaced:
                continue
            replaced |= {first: None, last: None}
            position = last if _ready(index, node, last) else i
            replaced[i] = None
            replaced[position] = _fused(index, norm, added, node, first)
        nodes = [replaced.get(i, node) for i, node in enumerate(index.nodes)]
        del proto.graph.node[:]
        proto.graph.node.extend(node for node in nodes if node is not None)
        return edited.edited(proto)


def split_skip_norms(model: Model) -> tuple[Model, SplitNorms | None]:
    """A model whose fused skip norms are sums and norms, and what is needed to fuse them again."""
    if not any(ops.qualified(node) in _NORM for node in model.graph.node):
        return model, None
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    norms, nodes = [], []
    for node in model.graph.node:
        if ops.qualified(node) not in _NORM or _gives_statistics(node):
            nodes.append(node)
            continue
        norm = _described(node)
        norms.append(norm)
        nodes.extend(_split(norm))
    if not norms:
        return model, None
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return model.edited(proto), SplitNorms(tuple(norms))


def _gives_statistics(node: onnx.NodeProto) -> bool:
    """Whether the mean or the deviation is read, too, which only training does."""
    return any(node.output[1:_SUM])


def _described(node: onnx.NodeProto) -> SplitNorm:
    total = node.output[_SUM] if len(node.output) > _SUM and node.output[_SUM] else f"{node.output[0]}/sum"
    bias = _operand(node, 4 if node.op_type == "SkipLayerNormalization" else 3)
    return SplitNorm(node, total, f"{total}/unbiased" if bias else total, node.output[0])


def _split(norm: SplitNorm) -> Iterator[onnx.NodeProto]:
    node, simple = norm.fused, norm.fused.op_type == "SkipSimplifiedLayerNormalization"
    # Names without slashes lie in no scope: a sum ends the block in front of it, not the norm's.
    mark = (node.name or node.output[0]).strip("/").replace("/", ".")
    yield helper.make_node("Add", list(node.input[:2]), [norm.biased], name=f"{mark}.sum")
    if norm.biased != norm.total:
        bias = _operand(node, 3 if simple else 4)
        yield helper.make_node("Add", [norm.biased, bias], [norm.total], name=f"{mark}.bias")
    weights = [_operand(node, 2), "" if simple else _operand(node, 3)]
    inputs = [norm.total, *(weights if weights[1] else weights[:1])]
    epsilon = ops.attribute(node, "epsilon", _EPSILON)
    made = helper.make_node(
        _NORM[ops.qualified(node)], inputs, [norm.normed], name=node.name, axis=-1, epsilon=epsilon
    )
    made.metadata_props.extend(node.metadata_props)
    yield made


def _operand(node: onnx.NodeProto, position: int) -> str:
    return node.input[position] if position < len(node.input) else ""


def _ready(index: GraphIndex, norm: onnx.NodeProto, position: int) -> bool:
    """Whether a norm's weights are there at a position in the graph; constants as a rule."""
    return all(index.producer.get(name, -1) < position for name in norm.input[1:] if name)


def _fused(
    index: GraphIndex, norm: SplitNorm, added: SplitNorm, node: onnx.NodeProto, first: int
) -> onnx.NodeProto:
    """One node for a sum and the norm that reads it; it carries the norm's name and weights."""
    fused = onnx.NodeProto()
    fused.CopyFrom(norm.fused)
    simple = fused.op_type == "SkipSimplifiedLayerNormalization"
    bias = ""
    if added.biased != added.total:
        total = index.nodes[index.producer[added.total]]
        bias = next(name for name in total.input if name != added.biased)
    weights = list(node.input[1:2]) if simple else [*node.input[1:3], *([""] * (3 - len(node.input)))]
    operands = [*index.nodes[first].input[:2], *weights, bias]
    while not operands[-1]:
        operands.pop()
    del fused.input[:]
    fused.input.extend(operands)
    others = [reader for reader in index.readers.get(added.total, ()) if index.nodes[reader] is not node]
    wanted = bool(others) or added.total in index.outputs
    del fused.output[:]
    fused.output.extend([node.output[0], "", "", added.total] if wanted else [node.output[0]])
    return fused

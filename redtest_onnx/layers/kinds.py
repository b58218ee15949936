"""What a layer is, in the words of practitioners."""

from __future__ import annotations

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.layers.regions import Region

BLOCKS = frozenset(
    {"residual block", "branches", "attention", "feed-forward", "block", "recurrent block", "message passing"}
)
"""Kinds of layers with several branches."""

_GATES = {"Sigmoid", "Tanh"}
_SCATTERS = {"ScatterElements", "ScatterND"}
_FEED_FORWARD = 4  # operators with weights: gate, up, down, and one to spare


def kind_of(index: GraphIndex, region: Region) -> str:
    """The operator of a single one, else what an indivisible block does.

    One operator with weights whose values only its activation or gate uses twice is named by the operator.
    """
    core = sorted(region.core)
    kinds = [ops.qualified(index.nodes[i]) for i in core]
    if len(kinds) == 1:
        return kinds[0]
    found = set(kinds)
    for name, marks in (
        ("recurrent block", ops.RECURRENT),
        ("control flow", ops.CONTROL_FLOW),
        ("attention", ops.ATTENTION),
    ):
        if not found.isdisjoint(marks):
            return name
    with_weights = [i for i in core if i in index.weighted]
    if with_weights and all(ops.qualified(index.nodes[i]) in ops.TABLES for i in with_weights):
        return "embedding"
    joins = {ops.qualified(index.nodes[i]) for i in core if len(index.activation_inputs(i)) > 1}
    residual = not joins.isdisjoint({"Add", "Sum"})
    convolutions = not found.isdisjoint(ops.CONVOLUTION)
    if not convolutions and _steps(index, with_weights, kinds):
        return "recurrent block"
    if len(with_weights) == 1 and not residual:
        return ops.qualified(index.nodes[with_weights[0]])
    if convolutions:
        merge = index.nodes[index.producer[region.tensor]].op_type
        return "residual block" if residual and merge != "Concat" else "branches"
    if not found.isdisjoint(_SCATTERS):
        return "message passing"  # what nodes of a graph tell their neighbours is summed up
    small = len(with_weights) <= _FEED_FORWARD
    return "feed-forward" if small and (residual or "Mul" in joins) else "block"


def _steps(index: GraphIndex, with_weights: list[int], kinds: list[str]) -> bool:
    """Whether a block is a recurrent cell, spelt out for one step or for several with the same weights."""
    gates = set(kinds) >= _GATES and kinds.count("Mul") > 1
    nodes = set(with_weights)
    again = any(
        name in index.initializers and len(nodes.intersection(index.readers[name])) > 1
        for i in with_weights
        for name in index.reads[i]
    )
    return gates or (again and "Tanh" in kinds)

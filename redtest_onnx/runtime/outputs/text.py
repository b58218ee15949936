"""What is known of outputs by position in a text: which positions count, and whether a decoder gives them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.masks import Mask, as_mask
from redtest_onnx.graph.signature import state_inputs

if TYPE_CHECKING:
    from redtest_onnx.runtime.outputs.holds import OutputGraph

_MASK = re.compile(r"mask", re.IGNORECASE)
_LENGTH = re.compile(r"len(gth)?s?($|[_./])", re.IGNORECASE)
_CAUSAL = frozenset({"Trilu", "com.microsoft:GroupQueryAttention"})
_SAME_IDS = ops.CARRIERS | ops.RESHAPES
_PADDED = 64  # tables are rounded up to multiples of this


def position_mask(graph: OutputGraph, tensor: str, axis: int | None) -> Mask | None:
    """The model input that says which positions of a tensor [N, T, ...] count; None if there is none.

    That is the model's mask, where the tensor depends on it and has its positions; another input called a
    mask of sizes [N, T]; or one of lengths [N].
    """
    sizes = graph.shapes.sizes.get(tensor, ())
    if len(sizes) < 2 or (axis is not None and axis % len(sizes) == 1) or (len(sizes) == 2 and axis is None):
        return None
    depends = None
    known = graph.mask
    # The model's own mask goes before others of the same sizes.
    for spec in sorted(graph.model.inputs, key=lambda spec: known is None or spec.name != known.input):
        own = known is not None and spec.name == known.input
        shape = graph.shapes.sizes.get(spec.name, ())
        by_mask = (own or _MASK.search(spec.name)) and len(shape) == 2 and shape[1] == sizes[1]
        by_length = _LENGTH.search(spec.name) and len(shape) == 1 and spec.dtype in _INTEGERS
        if by_mask or by_length:
            depends = depends or _sources(graph.index, tensor)
            if spec.name in depends:
                return known if own else as_mask(graph.model, graph.index, spec)
    return None


def decoder_vocabulary(graph: OutputGraph) -> int | None:
    """Number of tokens of a decoder: a model that looks up ids in a table and can't see those that follow."""
    index = graph.index
    causal = bool(state_inputs(graph.model)) or any(
        ops.qualified(node) in _CAUSAL
        or ops.attribute(node, "unidirectional", 0) == 1
        or ops.attribute(node, "is_causal", 0) == 1
        for node in index.nodes
    )
    if not causal:
        return None
    sizes = _tables(graph)
    heads = [
        stored.dims
        for node in index.nodes
        for name in node.input[1:2]
        if (stored := index.initializers.get(name)) is not None and len(stored.dims) == 2
    ]
    for rows in sizes:
        if any(rows in dims or rows + (-rows % _PADDED) in dims for dims in heads):
            return rows
    return sizes[0] if sizes else None


def _tables(graph: OutputGraph) -> list[int]:
    """Rows of each table that an input of ids [N, T] is looked up in; the largest first."""
    index = graph.index
    ids = {spec.name for spec in graph.model.inputs if spec.dtype in _INTEGERS and len(spec.shape or ()) == 2}
    found = []
    for node in index.nodes:
        if node.op_type != "Gather" or (stored := index.initializers.get(node.input[0])) is None:
            continue
        name = node.input[1]
        while name in index.producer and index.nodes[index.producer[name]].op_type in _SAME_IDS:
            name = index.nodes[index.producer[name]].input[0]
        if name in ids and len(stored.dims) == 2:
            found.append(int(stored.dims[0]))
    return sorted(found, reverse=True)


def _sources(index: GraphIndex, tensor: str) -> set[str]:
    """All tensors that a tensor is computed from."""
    found: set[str] = set()
    stack = [tensor]
    while stack:
        name = stack.pop()
        if name in found:
            continue
        found.add(name)
        node = index.producer.get(name)
        if node is not None:
            stack.extend(index.reads[node])
    return found


_INTEGERS = frozenset({onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL})

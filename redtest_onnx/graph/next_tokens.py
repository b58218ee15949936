"""Whether a model predicts the next token: it looks up ids, does not see what follows, and scores all ids."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex, index_of
from redtest_onnx.graph.masks import masks_attention
from redtest_onnx.graph.model import Model, TensorSpec
from redtest_onnx.graph.signature import state_inputs

_CAUSAL = frozenset({"Trilu", "com.microsoft:GroupQueryAttention"})
_COMPARISONS = frozenset({"Less", "LessOrEqual", "Greater", "GreaterOrEqual"})
_SAME_VALUES = ops.CARRIERS | ops.RESHAPES
_INTEGERS = frozenset({onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL})
_LOOKUPS = frozenset({"Gather", ops.MS + "GatherBlockQuantized"})  # of a table's rows, by a second operand
_PADDED = 64  # tables are rounded up to multiples of this
_LARGEST_MASK = 1 << 24  # elements that are read to see whether a stored matrix is a mask


def decoder_vocabulary(model: Model) -> int | None:
    """Number of tokens of a decoder: a model that looks up ids in a table and can't see those that follow."""
    if "vocabulary" not in model.facts:
        model.facts["vocabulary"] = _vocabulary(model, index_of(model))
    found = model.facts["vocabulary"]
    assert found is None or isinstance(found, int)
    return found


def scores_next_tokens(model: Model) -> bool:
    """Whether an output [N, T, C] of a decoder has a score for each of its tokens, by the graph alone."""
    vocabulary = decoder_vocabulary(model)
    if vocabulary is None:
        return False
    index = index_of(model)
    return any(vocabulary in _widths(index, spec) for spec in model.outputs)


def _vocabulary(model: Model, index: GraphIndex) -> int | None:
    sizes = _tables(model, index)
    if not sizes or not _sees_no_later_token(model, index):
        return None
    heads = [dims for node in index.nodes if (dims := _matrix(index, node))]
    for rows in sizes:
        if any(rows in dims or rows + (-rows % _PADDED) in dims for dims in heads):
            return rows
    return sizes[0]


def _sees_no_later_token(model: Model, index: GraphIndex) -> bool:
    """Whether the model has a state, or attention that leaves out what follows."""
    if state_inputs(model) or any(
        ops.qualified(node) in _CAUSAL
        or ops.attribute(node, "unidirectional", 0) == 1
        or ops.attribute(node, "is_causal", 0) == 1
        for node in index.nodes
    ):
        return True
    return any(masks_attention(index, name) for name in _causal_masks(model, index))


def _causal_masks(model: Model, index: GraphIndex) -> Iterator[str]:
    """Tensors that tell earlier positions from later ones: two ranges compared, or a stored triangle."""
    for node in index.nodes:
        if node.op_type in _COMPARISONS and all(_is_range(index, name) for name in node.input):
            yield node.output[0]
    for name, stored in index.initializers.items():
        if len(stored.dims) < 2 or not stored.dims[-1] == stored.dims[-2] == prod(stored.dims) ** 0.5 > 1:
            continue
        read_as_weight = not index.weighted.isdisjoint(index.readers.get(name, ()))
        if not read_as_weight and prod(stored.dims) <= _LARGEST_MASK and _is_triangle(model, stored):
            yield name


def _is_range(index: GraphIndex, name: str) -> bool:
    """Whether a tensor counts positions, in any shape.

    Sums and differences don't: a window that reaches to both sides compares distances.
    """
    while (producer := index.producer.get(name)) is not None:
        node = index.nodes[producer]
        if node.op_type not in _SAME_VALUES:
            return node.op_type == "Range"
        name = node.input[0]
    return False


def _is_triangle(model: Model, stored: onnx.TensorProto) -> bool:
    """Whether a stored matrix has one value up to the diagonal and another one behind it."""
    matrix = model.value(stored).reshape(stored.dims[-2:])
    seen, later = matrix[0, 0], matrix[0, 1]
    return bool(seen != later) and np.array_equal(
        matrix, np.where(np.tri(len(matrix), dtype=bool), seen, later)
    )


def _tables(model: Model, index: GraphIndex) -> list[int]:
    """Rows of each table that an input of ids [N, T] is looked up in; the largest first."""
    inputs = [spec for spec in model.inputs if spec.dtype in _INTEGERS and len(spec.shape or ()) == 2]
    ids = {
        spec.name for spec in inputs if "position" not in spec.name.lower()
    }  # theirs may be the larger table
    found = []
    for node in index.nodes:
        if ops.qualified(node) not in _LOOKUPS or (stored := index.initializers.get(node.input[0])) is None:
            continue
        name = node.input[1]
        while name in index.producer and index.nodes[index.producer[name]].op_type in _SAME_VALUES:
            name = index.nodes[index.producer[name]].input[0]
        if name in ids and len(stored.dims) == 2:
            found.append(int(stored.dims[0]))
    return sorted(found, reverse=True)


def _widths(index: GraphIndex, spec: TensorSpec) -> tuple[int, ...]:
    """Sizes that the last axis of an output [N, T, C] may have: what is declared, or what its matrix has."""
    if spec.shape is not None:
        if len(spec.shape) != 3:
            return ()
        if isinstance(spec.shape[-1], int):
            return (spec.shape[-1],)
    name = spec.name
    while (producer := index.producer.get(name)) is not None:
        node = index.nodes[producer]
        if node.op_type not in ops.CARRIERS:
            return _matrix(index, node)
        name = node.input[0]
    return ()


def _matrix(index: GraphIndex, node: onnx.NodeProto) -> tuple[int, ...]:
    """Sizes of the stored matrix that a node multiplies by; () where there is none."""
    if ops.qualified(node) == ops.MS + "MatMulNBits":
        return tuple(int(str(ops.attribute(node, size))) for size in ("K", "N"))
    for name in node.input[1:2]:
        stored = index.initializers.get(index.handed_on.get(name, name))
        if stored is not None and len(stored.dims) == 2:
            return tuple(stored.dims)
    return ()

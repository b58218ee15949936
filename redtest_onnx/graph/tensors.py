"""The tensors that an ONNX file stores: where they are in it, and how large they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np
import onnx

LARGE_WEIGHT = 1 << 16
"""Bytes of a weight from which on it is worth not to be copied; no operator reads so many as a shape."""
_STANDARD = ("", "ai.onnx")
_TYPES = onnx.defs.OpSchema.AttrType
_HOLDING = frozenset(
    (
        _TYPES.TENSOR,
        _TYPES.TENSORS,
        _TYPES.GRAPH,
        _TYPES.GRAPHS,
        _TYPES.SPARSE_TENSOR,
        _TYPES.SPARSE_TENSORS,
    )
)


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All stored tensors of a graph and its subgraphs: initializers and tensor attributes."""
    yield from graph.initializer
    yield from _attribute_tensors(graph.node)


def stored_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a model's file, those of local functions and sparse ones' values and indices too."""
    yield from tensors(proto.graph)
    for function in proto.functions:
        yield from _attribute_tensors(function.node)
    for tensor in sparse_tensors(proto):
        yield tensor.values
        yield tensor.indices


def sparse_tensors(proto: onnx.ModelProto) -> Iterator[onnx.SparseTensorProto]:
    """All sparse tensors of a model's file: initializers and attributes, in functions and subgraphs too."""
    graphs = [proto.graph]
    nodes = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    while graphs or nodes:
        yield from (tensor for graph in graphs for tensor in graph.sparse_initializer)
        for attribute in _holding_attributes(nodes):
            if attribute.HasField("sparse_tensor"):
                yield attribute.sparse_tensor
            yield from attribute.sparse_tensors
        graphs = [*subgraphs(nodes)]
        nodes = [node for graph in graphs for node in graph.node]


def _attribute_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in _holding_attributes(nodes):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
    for child in subgraphs(nodes):
        yield from tensors(child)


def subgraphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    """The graphs directly inside the given nodes (branches of If, bodies of Loop and Scan)."""
    for attribute in _holding_attributes(nodes):
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _holding_attributes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.AttributeProto]:
    """The attributes of those nodes that may hold tensors or graphs in them, which are few."""
    for node in nodes:
        if may_hold(node.domain, node.op_type):
            yield from node.attribute


@cache
def may_hold(domain: str, op_type: str) -> bool:
    """Whether attributes of an operator may be tensors or graphs: of ONNX's own, as it is defined."""
    if domain not in _STANDARD or not onnx.defs.has(op_type):
        return True
    attributes = onnx.defs.get_schema(op_type).attributes.values()
    return any(attribute.type in _HOLDING for attribute in attributes)


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the values lie in another file."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def external_location(tensor: onnx.TensorProto) -> str:
    """The file that holds an external tensor's values, as the model names it."""
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def holds_much(tensor: onnx.TensorProto) -> bool:
    """Whether a large weight lies in the model itself."""
    return tensor.HasField("raw_data") and tensor_bytes(tensor) > LARGE_WEIGHT and not is_external(tensor)


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Size of the values in bytes; a last byte that is half full counts."""
    return -(-tensor_elements(tensor.dims) * element_bits(tensor.data_type) // 8)


def tensor_elements(dims: Iterable[int]) -> int:
    """Number of elements for the given dimensions."""
    count = 1
    for dim in dims:
        count *= dim
    return count


@cache
def element_bits(dtype: int) -> int:
    """Bits one element of an ONNX type takes; 0 for types without a fixed size (strings)."""
    name = dtype_name(dtype)
    if name in {"string", "undefined"}:
        return 0
    if name.endswith("int4") or name.startswith("float4"):
        return 4
    if name.endswith("int2"):
        return 2
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(dtype)).itemsize * 8


def dtype_name(dtype: int) -> str:
    """The ONNX name of an element type in lower case, `float` for 1."""
    try:
        return str(onnx.TensorProto.DataType.Name(dtype)).lower()
    except ValueError:
        return f"type{dtype}"

"""Sizes of caches that the graph fixes although its signature leaves them open: heads and their width."""

from __future__ import annotations

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.caches import PORTS
from redtest_onnx.graph.index import GraphIndex, index_of
from redtest_onnx.graph.model import Model

_KEEPS_WIDTH = frozenset(
    {"Add", "Cast", "Identity", "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"}
    | {ops.MS + "RotaryEmbedding", "RotaryEmbedding", "Mul", "Dropout"}
)


def cache_sizes(model: Model) -> dict[str, dict[int, int]]:
    """Sizes of open axes of caches by input and axis, as far as attention operators or weights fix them.

    The caches of attention operators are [batch, heads, past, width].
    """
    open_inputs = {
        spec.name: spec.shape
        for spec in model.inputs
        if spec.shape and len(spec.shape) == 4 and not all(isinstance(dim, int) for dim in spec.shape[1::2])
    }
    if not open_inputs:
        return {}
    index = index_of(model)
    declared = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    found: dict[str, dict[int, int]] = {}
    for node in index.nodes:
        for k, (past, _) in enumerate(PORTS.get(ops.qualified(node), ())):
            name = node.input[past] if past < len(node.input) else ""
            if name in open_inputs:
                found[name] = _of_attention(index, declared, node, value=k == 1)
        if ops.qualified(node) == "Concat" and len(node.input) == 2 and node.input[0] in open_inputs:
            found.setdefault(node.input[0], _of_concat(declared, node))
    return found


def _of_attention(
    index: GraphIndex, declared: dict[str, onnx.ValueInfoProto], node: onnx.NodeProto, *, value: bool
) -> dict[int, int]:
    heads = _integer(node, "num_heads") or _integer(node, "q_num_heads")
    own = _integer(node, "kv_num_heads") or heads
    if not heads or not own:
        return {}
    sizes = {1: own}
    read = [name for name in node.input[:3] if name]
    if len(read) == 1:
        # Query, key and value lie packed in one tensor.
        packed, total = _width(index, declared, read[0]), heads + 2 * own
    else:
        packed, total = _width(index, declared, read[2 if value and len(read) > 2 else 1]), own
    if packed is None:
        packed, total = _width(index, declared, node.output[0]), heads
    if packed and packed % total == 0:
        sizes[3] = packed // total
    return sizes


def _of_concat(declared: dict[str, onnx.ValueInfoProto], node: onnx.NodeProto) -> dict[int, int]:
    """What the new part says, as long as it has been inferred."""
    info = declared.get(node.input[1]) or declared.get(node.output[0])
    if info is None or not info.type.tensor_type.HasField("shape"):
        return {}
    axis = ops.attribute(node, "axis")
    dims = info.type.tensor_type.shape.dim
    return {k: d.dim_value for k, d in enumerate(dims) if k != axis and k > 0 and d.dim_value > 0}


def _width(index: GraphIndex, declared: dict[str, onnx.ValueInfoProto], name: str) -> int | None:
    """Size of the last axis of what an operator with weights gives; None where it can't be told."""
    while True:
        if (info := declared.get(name)) is not None and info.type.tensor_type.HasField("shape"):
            dims = info.type.tensor_type.shape.dim
            if len(dims) == 3 and dims[-1].dim_value > 0:
                return int(dims[-1].dim_value)
        producer = index.producer.get(name)
        if producer is None:
            return None
        node = index.nodes[producer]
        kind = ops.qualified(node)
        if kind == ops.MS + "MatMulNBits":
            return _integer(node, "N")
        if kind in ("MatMul", "MatMulInteger", "Gemm") and node.input[1] in index.initializers:
            dims_of = index.initializers[node.input[1]].dims
            return int(dims_of[0] if ops.attribute(node, "transB", 0) else dims_of[-1])
        vector = [index.initializers[r] for r in node.input if r in index.initializers]
        if kind == "Add" and len(vector) == 1 and len(vector[0].dims) == 1:
            return int(vector[0].dims[0])
        if kind not in _KEEPS_WIDTH:
            return None
        name = next((read for read in node.input if read in index.input_dependent), "")


def _integer(node: onnx.NodeProto, name: str) -> int | None:
    value = ops.attribute(node, name)
    return value if isinstance(value, int) else None

"""Multiply-accumulates (1 MAC = 2 FLOPs), operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import prod

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import subgraphs
from redtest_onnx.graph.shapes import Shape, Shapes


def count_macs(index: GraphIndex, shapes: Shapes, nodes: Iterable[int] | None = None) -> int | None:
    """Multiply-accumulates for one sample at the given sizes; None if a shape or operator is unknown.

    Convolutions, matrix products and recurrent cells count; what is done element by element doesn't.
    """
    total = 0
    for i in range(len(index.nodes)) if nodes is None else nodes:
        node = index.nodes[i]
        macs = _node_macs(node, shapes.sizes)
        # What operators do that only their library knows is unknown, too; without weights it is no matter.
        own = ops.is_unknown(node) and any(name in index.initializers for name in node.input)
        if macs is None or own:
            return None
        total += macs
    return total // shapes.samples


def sizes_counted(index: GraphIndex) -> frozenset[str]:
    """Tensors whose sizes `count_macs` may need: what operators that multiply read and make."""
    multiplying = (node for node in index.nodes if ops.qualified(node) in _RULES)
    return frozenset(name for node in multiplying for name in (*node.input, *node.output) if name)


def _node_macs(node: onnx.NodeProto, sizes: Mapping[str, Shape]) -> int | None:
    rule = _RULES.get(ops.qualified(node))
    if rule is None:
        if ops.qualified(node) in _MULTIPLY:
            return None
        # What runs inside control flow, and how often, is not known before the run.
        return None if any(_multiplies(child) for child in subgraphs([node])) else 0
    try:
        return rule(node, sizes) if len(node.input) > 1 else None
    except KeyError:
        return None


def _multiplies(graph: onnx.GraphProto) -> bool:
    return any(
        ops.qualified(node) in _RULES or any(map(_multiplies, subgraphs([node]))) for node in graph.node
    )


def _conv(node: onnx.NodeProto, sizes: Mapping[str, Shape], weight: int = 1) -> int:
    # [M, C / groups, kernel...]: every output element takes one product per kernel element and channel.
    return prod(sizes[node.output[0]]) * prod(sizes[node.input[weight]][1:])


def _conv_transpose(node: onnx.NodeProto, sizes: Mapping[str, Shape]) -> int:
    # [C, M / groups, kernel...]: every input element is spread over the kernel.
    return prod(sizes[node.input[0]]) * prod(sizes[node.input[1]][1:])


def _qlinear_conv(node: onnx.NodeProto, sizes: Mapping[str, Shape]) -> int:
    return _conv(node, sizes, weight=3)


def _matmul(node: onnx.NodeProto, sizes: Mapping[str, Shape]) -> int:
    return prod(sizes[node.output[0]]) * sizes[node.input[0]][-1]


def _fused_matmul(node: onnx.NodeProto, sizes: Mapping[str, Shape]) -> int:
    # transBatchA moves the rows of A in front of its batch dimensions.
    first = sizes[node.input[0]]
    rows = 0 if ops.attribute(node, "transBatchA", 0) else -2
    inner = first[rows] if ops.attribute(node, "transA", 0) and len(first) > 1 else first[-1]
    return prod(sizes[node.output[0]]) * inner


def _gemm(node: onnx.NodeProto, sizes: Mapping[str, Shape]) -> int:
    inner = 0 if ops.attribute(node, "transA", 0) else 1
    return prod(sizes[node.output[0]]) * sizes[node.input[0]][inner]


def _recurrent(node: onnx.NodeProto, sizes: Mapping[str, Shape]) -> int:
    # W [directions, gates * hidden, input] and R [.., hidden] are applied once per step and sample.
    sequence = sizes[node.input[0]]
    return sequence[0] * sequence[1] * (prod(sizes[node.input[1]]) + prod(sizes[node.input[2]]))


def _einsum(node: onnx.NodeProto, sizes: Mapping[str, Shape]) -> int:
    equation = ops.attribute(node, "equation", b"")
    assert isinstance(equation, bytes)
    terms = equation.decode().replace(" ", "").split("->")[0].split(",")
    extents: dict[str | int, int] = {}
    for term, name in zip(terms, node.input, strict=True):
        before, _, after = term.partition("...")
        # Axes that the dots stand for broadcast, so they are counted from the right.
        dots = range(len(sizes[name]) - len(before) - len(after), 0, -1)
        for axis, size in zip((*before, *dots, *after), sizes[name], strict=True):
            extents[axis] = max(size, extents.get(axis, 1))
    return prod(extents.values())


def _attention(node: onnx.NodeProto, sizes: Mapping[str, Shape]) -> int:
    # Scores q k^T and their product with v; q [.., n, d], k [.., m, d].
    query, key = sizes[node.input[0]], sizes[node.input[1]]
    return 2 * prod(query) * _with_cached(node, sizes, key[-2], past=4)


def _with_cached(node: onnx.NodeProto, sizes: Mapping[str, Shape], own: int, past: int) -> int:
    """Number of keys, those of the cache included: [.., keys, d] of its input, and of the second output."""
    if len(node.output) > 1 and node.output[1] in sizes:
        return sizes[node.output[1]][-2]
    cached = len(node.input) > past and bool(node.input[past])
    return own + (sizes[node.input[past]][-2] if cached else 0)


def _bits_matmul(node: onnx.NodeProto, sizes: Mapping[str, Shape]) -> int:
    return prod(sizes[node.output[0]]) * int(str(ops.attribute(node, "K", 0)))


def _multi_head(node: onnx.NodeProto, sizes: Mapping[str, Shape]) -> int:
    # Query [b, n, d] and key [b, m, d] or [b, heads, m, d / heads]; or packed as [b, n, heads, 3, d / heads].
    query = sizes[node.input[0]]
    if len(query) == 5:
        return 2 * prod(query) // 3 * query[1]
    return 2 * prod(query) * _with_cached(node, sizes, sizes[node.input[1]][-2], past=6)


def _grouped_attention(node: onnx.NodeProto, sizes: Mapping[str, Shape]) -> int:
    # Query [b, n, heads * d], with keys and values behind it where packed; all keys are in the cache.
    query = sizes[node.input[0]]
    total = sizes[node.output[1]][-2] if len(node.output) > 1 and node.output[1] in sizes else query[1]
    return 2 * prod(sizes[node.output[0]]) * total


def _experts(node: onnx.NodeProto, sizes: Mapping[str, Shape]) -> int:
    # Tokens [.., d] through k of the experts' matrices [experts, d, e] and [experts, e, d].
    tokens = prod(sizes[node.input[0]][:-1])
    chosen = int(str(ops.attribute(node, "k", 1)))
    matrices = [node.input[k] for k in (2, 4, 6) if k < len(node.input) and node.input[k]]
    return tokens * chosen * sum(prod(sizes[name][1:]) for name in matrices)


def _projected_attention(node: onnx.NodeProto, sizes: Mapping[str, Shape]) -> int:
    # [b, n, d] through weights [d, 3 e], then scores of queries and keys, and their product with values.
    (batch, length, _), (width, projected) = sizes[node.input[0]], sizes[node.input[1]]
    keys = _with_cached(node, sizes, length, past=8 if ops.qualified(node) == ops.MS + "QAttention" else 4)
    return batch * length * projected * width + 2 * batch * length * keys * (projected // 3)


_RULES: dict[str, Callable[[onnx.NodeProto, Mapping[str, Shape]], int]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "DeformConv": _conv,
    ops.MS + "FusedConv": _conv,
    ops.MS + "NhwcFusedConv": _conv,
    "ConvTranspose": _conv_transpose,
    "QLinearConv": _qlinear_conv,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    ops.MS + "FusedMatMul": _fused_matmul,
    ops.MS + "MatMulNBits": _bits_matmul,
    ops.MS + "MatMulBnb4": _bits_matmul,
    ops.MS + "GemmFastGelu": _matmul,
    ops.MS + "MatMulIntegerToFloat": _matmul,
    ops.MS + "DynamicQuantizeMatMul": _matmul,
    "Gemm": _gemm,
    ops.MS + "FusedGemm": _gemm,
    ops.MS + "QGemm": _gemm,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Einsum": _einsum,
    "Attention": _attention,
    ops.MS + "Attention": _projected_attention,
    ops.MS + "QAttention": _projected_attention,
    ops.MS + "MultiHeadAttention": _multi_head,
    ops.MS + "GroupQueryAttention": _grouped_attention,
    ops.MS + "MoE": _experts,
    ops.MS + "DynamicQuantizeLSTM": _recurrent,
}
# What multiplies in other ways than are known here, besides.
_MULTIPLY = (ops.WEIGHT_INPUTS.keys() - ops.TABLES) | (ops.ATTENTION - {"Softmax"})

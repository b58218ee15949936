"""What a graph costs: parameters, multiply-accumulates (1 MAC = 2 FLOPs) and the memory of activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.memory_plan import peak_activation_bytes, stored_bytes
from redtest_onnx.graph.model import subgraphs, tensor_elements
from redtest_onnx.graph.shapes import FLOAT_TYPES, LOW_BIT_TYPES, Shape, Shapes

# Running statistics of a BatchNormalization are measured, not learned.
_STATISTICS = {"BatchNormalization": (3, 4)}


@dataclass(frozen=True)
class Cost:
    """What a model costs, for one sample.

    Attributes:
        parameters: number of learned values.
        parameter_bytes: bytes of all stored values.
        macs: multiply-accumulates; None if a shape is unknown.
        peak_activation_bytes: largest sum of live activations; None if a shape is unknown.
    """

    parameters: int
    parameter_bytes: int
    macs: int | None
    peak_activation_bytes: int | None


def model_cost(index: GraphIndex, shapes: Shapes) -> Cost:
    """The cost of a graph at the given sizes."""
    return Cost(
        count_parameters(index),
        parameter_bytes(index),
        count_macs(index, shapes),
        peak_activation_bytes(index, shapes),
    )


def count_parameters(index: GraphIndex, nodes: Iterable[int] | None = None) -> int:
    """Number of learned values: floating-point or low-bit constants with more than one element.

    Args:
        index: the graph.
        nodes: count only what these nodes alone read; the whole graph, with its branches, if None.
    """
    chosen = range(len(index.nodes)) if nodes is None else frozenset(nodes)
    total = 0
    for name in {name for i in chosen for name in index.reads[i] if name in index.initializers}:
        readers = index.readers[name]
        statistic = any(_takes_statistics(index.nodes[reader], name) for reader in readers)
        if not statistic and all(reader in chosen for reader in readers):
            total += _parameters(index.initializers[name])
    for i in chosen:
        node = index.nodes[i]
        if node.op_type == "Constant" and isinstance(value := ops.attribute(node, "value"), onnx.TensorProto):
            total += _parameters(value)
        total += sum(count_parameters(GraphIndex(child)) for child in subgraphs([node]))
    return total


def parameter_bytes(index: GraphIndex) -> int:
    """Bytes of all stored values: initializers and Constant nodes of any type, with branches."""
    total = sum(stored_bytes(tuple(t.dims), t.data_type) for t in index.initializers.values())
    for node in index.nodes:
        if node.op_type == "Constant" and isinstance(value := ops.attribute(node, "value"), onnx.TensorProto):
            total += stored_bytes(tuple(value.dims), value.data_type)
        total += sum(parameter_bytes(GraphIndex(child)) for child in subgraphs([node]))
    return total


def count_macs(index: GraphIndex, shapes: Shapes, nodes: Iterable[int] | None = None) -> int | None:
    """Multiply-accumulates of one run at the given sizes; None if a needed shape is unknown.

    Convolutions, matrix products and recurrent cells count; what is done element by element doesn't.
    """
    total = 0
    for i in range(len(index.nodes)) if nodes is None else nodes:
        macs = _node_macs(index.nodes[i], shapes.sizes)
        if macs is None:
            return None
        total += macs
    return total


def _takes_statistics(node: onnx.NodeProto, name: str) -> bool:
    places = _STATISTICS.get(ops.qualified(node), ())
    return any(node.input[k] == name for k in places if k < len(node.input))


def _parameters(tensor: onnx.TensorProto) -> int:
    count = tensor_elements(tensor.dims)
    return count if count > 1 and tensor.data_type in FLOAT_TYPES | LOW_BIT_TYPES else 0


def _node_macs(node: onnx.NodeProto, sizes: Mapping[str, Shape]) -> int | None:
    rule = _RULES.get(ops.qualified(node))
    if rule is None:
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
    return 2 * prod(query) * key[-2]


def _projected_attention(node: onnx.NodeProto, sizes: Mapping[str, Shape]) -> int:
    # [b, n, d] through weights [d, 3 e], then scores of queries and keys, and their product with values.
    (batch, length, _), (width, projected) = sizes[node.input[0]], sizes[node.input[1]]
    return batch * length * projected * width + 2 * batch * length * length * (projected // 3)


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
    ops.MS + "MatMulNBits": _matmul,
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
    ops.MS + "MultiHeadAttention": _attention,
}

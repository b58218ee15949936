"""What a graph costs: parameters, multiply-accumulates (1 MAC = 2 FLOPs) and the memory of activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import prod

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import element_bits, subgraphs, tensor_elements
from redtest_onnx.graph.shapes import FLOAT_TYPES, LOW_BIT_TYPES, Shape, Shapes

# Running statistics of a BatchNormalization are measured, not learned.
_STATISTICS = {"BatchNormalization": (3, 4)}
# Operators whose result may take the place of their first input.
_IN_PLACE = ops.POINTWISE | frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "BatchNormalization"})


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
    total = sum(_bytes(tuple(t.dims), t.data_type) for t in index.initializers.values())
    for node in index.nodes:
        if node.op_type == "Constant" and isinstance(value := ops.attribute(node, "value"), onnx.TensorProto):
            total += _bytes(tuple(value.dims), value.data_type)
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


def peak_activation_bytes(index: GraphIndex, shapes: Shapes) -> int | None:
    """Memory of activations at its peak, as ONNX Runtime plans it; None if a shape is unknown.

    Nodes run in graph order. A node that may works in place; else its output takes a buffer that is free
    and was planned for the same shape, and that buffer is held until then. What a branch or body needs for
    itself is held while its node runs; of several branches, what the largest needs.
    """
    constant = {
        name for name in index.producer if name not in index.input_dependent
    } | index.initializers.keys()
    plan = _BufferPlan(index, shapes)
    for value in index.graph.input:
        if value.name not in constant:
            plan.feed(value.name)
    for i, node in enumerate(index.nodes):
        made = [name for name in node.output if name and name not in constant]
        if any(name not in shapes.sizes for name in made):
            return None
        inner = [
            peak_activation_bytes(GraphIndex(child, index.input_dependent), shapes)
            for child in subgraphs([node])
        ]
        if None in inner:
            return None
        plan.hold(i, max(filter(None, inner), default=0))
        plan.run(i, made)
    return plan.peak()


class _BufferPlan:
    """Which tensors share a buffer, and how long each buffer is held."""

    def __init__(self, index: GraphIndex, shapes: Shapes) -> None:
        self._index, self._shapes = index, shapes
        self._left = {name: len(readers) for name, readers in index.readers.items()}
        for name in index.outputs:
            self._left[name] = self._left.get(name, 0) + 1
        self._owner: dict[str, int] = {}  # buffer of each tensor
        self._sizes: list[int] = []
        self._from: list[int] = []
        self._until: list[int] = []
        self._users: list[int] = []  # live tensors in each buffer
        self._planned: list[object | None] = []  # the shape it was planned for
        self._free: list[tuple[object, int]] = []  # what a buffer was planned for; last freed first

    def feed(self, name: str) -> None:
        """A tensor that the caller holds throughout."""
        self._allocate(name, 0)
        self._until[-1] = len(self._index.nodes)
        self._users[-1] += 1

    def hold(self, i: int, size: int) -> None:
        """Bytes that one node needs for itself while it runs."""
        self._sizes.append(size)
        self._from.append(i)
        self._until.append(i)
        self._users.append(1)
        self._planned.append(None)

    def run(self, i: int, made: list[str]) -> None:
        """One node: buffers for what it makes, and those it read last are free again."""
        node = self._index.nodes[i]
        ends = [name for name in self._index.reads[i] if name in self._owner and self._left[name] == 1]
        for name in made:
            inherited = self._in_place(node, ends, name)
            if inherited is None:
                inherited = self._reused(name)
            if inherited is None:
                self._allocate(name, i)
            else:
                self._owner[name] = inherited
                self._users[inherited] += 1
            last = len(self._index.nodes) if name in self._index.outputs else i
            self._until[self._owner[name]] = max(self._until[self._owner[name]], last)
        for name in (*self._index.reads[i], *(name for name in made if not self._left.get(name))):
            if name in self._owner:
                self._left[name] = self._left.get(name, 0) - 1
                buffer = self._owner[name]
                self._until[buffer] = max(self._until[buffer], i)
                if self._left[name] <= 0:
                    self._release(name)

    def peak(self) -> int:
        """Largest sum of the buffers held at a time, in bytes."""
        change = [0] * (len(self._index.nodes) + 2)
        for size, start, end in zip(self._sizes, self._from, self._until, strict=True):
            change[start] += size
            change[end + 1] -= size
        return max(accumulate(change), default=0)

    def _allocate(self, name: str, i: int) -> None:
        self._owner[name] = len(self._sizes)
        self._sizes.append(_bytes(self._shapes.sizes.get(name, ()), self._shapes.dtypes.get(name, 0)))
        self._from.append(i)
        self._until.append(i)
        self._users.append(1)
        self._planned.append(self._key(name))

    def _in_place(self, node: onnx.NodeProto, ends: list[str], name: str) -> int | None:
        if ops.qualified(node) not in _IN_PLACE:
            return None
        size = _bytes(self._shapes.sizes[name], self._shapes.dtypes.get(name, 0))
        same = [self._owner[end] for end in ends if self._sizes[self._owner[end]] == size]
        return next((buffer for buffer in same if self._users[buffer] == 1), None)

    def _reused(self, name: str) -> int | None:
        key = self._key(name)
        if key is None or name in self._index.outputs:
            return None
        found = next((k for k, (planned, _) in enumerate(self._free) if planned == key), None)
        return None if found is None else self._free.pop(found)[1]

    def _release(self, name: str) -> None:
        buffer = self._owner[name]
        self._users[buffer] -= 1
        key = self._planned[buffer]
        if self._users[buffer] == 0 and key is not None:
            self._free.insert(0, (key, buffer))

    def _key(self, name: str) -> object | None:
        symbols = self._shapes.symbols.get(name)
        return None if symbols is None else (symbols, self._shapes.dtypes.get(name, 0))


def _takes_statistics(node: onnx.NodeProto, name: str) -> bool:
    places = _STATISTICS.get(ops.qualified(node), ())
    return any(node.input[k] == name for k in places if k < len(node.input))


def _parameters(tensor: onnx.TensorProto) -> int:
    count = tensor_elements(tensor.dims)
    return count if count > 1 and tensor.data_type in FLOAT_TYPES | LOW_BIT_TYPES else 0


def _bytes(shape: Shape, dtype: int) -> int:
    return -(-prod(shape) * element_bits(dtype) // 8)


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

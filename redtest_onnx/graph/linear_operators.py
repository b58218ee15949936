"""Linear operators whose weights can be solved for: what they read, what they must hit, where weights lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from redtest_onnx.arrays import Float64s
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex, index_of
from redtest_onnx.graph.model import Model

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """How a convolution over images, or over a line as images of height 1, looks at its input.

    Attributes:
        kernel: its sizes.
        strides: its strides.
        dilations: its dilations.
        before: padding in front of each axis; what is missing behind reads as zeros. Only for "NOTSET".
        auto_pad: "NOTSET", or "SAME_UPPER" and "SAME_LOWER", whose padding depends on the input's size.
    """

    kernel: Pair
    strides: Pair
    dilations: Pair
    before: Pair
    auto_pad: str = "NOTSET"

    def padding(self, size: Pair, out: Pair) -> Pair:
        """Padding in front of each axis for an input and an output of the given sizes."""
        if self.auto_pad == "NOTSET":
            return self.before
        total = [
            max((o - 1) * s + (k - 1) * d + 1 - n, 0)
            for n, o, k, s, d in zip(size, out, self.kernel, self.strides, self.dilations, strict=True)
        ]
        lower = self.auto_pad == "SAME_LOWER"
        return total[0] - total[0] // 2 if lower else total[0] // 2, (
            total[1] - total[1] // 2 if lower else total[1] // 2
        )


@dataclass(frozen=True)
class LinearOperator:
    """A convolution or matrix product with the affine steps behind it.

    Attributes:
        node: index of the node.
        kind: "Conv", "Gemm" or "MatMul".
        input: the activation it reads.
        output: what it makes.
        target: the last tensor that its output enters affinely: behind bias, normalisation and the sum with
            a shortcut. To correct `target` by D, the operator must add D / scale to its own output.
        scale: [q] factor per output channel between the operator's output and `target`.
        weight: node and position among its inputs that read the stored weights: the operator itself, or what
            hands them on to it alone.
        transposed: whether a matrix is stored as [outputs, inputs].
        bias: node and position among its inputs that read an additive constant per channel; None where
            there is none.
        bias_scale: [q] factor from it to `target`.
        geometry: how a convolution looks at its input; None for products.
        groups: groups of a convolution; 1 for products.
    """

    node: int
    kind: str
    input: str
    output: str
    target: str
    scale: Float64s
    weight: Pair
    transposed: bool
    bias: Pair | None
    bias_scale: Float64s
    geometry: Geometry | None
    groups: int = 1

    def unknowns(self, shape: tuple[int, ...]) -> int:
        """Values that one output is a sum over, for an input of the given sizes: p of its equations."""
        if self.geometry is None:
            return shape[-1]
        return shape[1] // self.groups * self.geometry.kernel[0] * self.geometry.kernel[1]

    def weight_of(self, model: Model) -> onnx.TensorProto:
        """Its weights in a model of the same structure; a repair may have given it weights of its own."""
        node, position = self.weight
        return model.initializers[model.graph.node[node].input[position]]

    def bias_of(self, model: Model) -> onnx.TensorProto | None:
        """Its additive constant in a model of the same structure."""
        if self.bias is None:
            return None
        node, position = self.bias
        return model.initializers[model.graph.node[node].input[position]]


def linear_operators(model: Model) -> list[LinearOperator]:
    """All operators of the main graph that a fit can change, in graph order.

    Those with computed or quantised weights, convolutions over volumes, and alpha and beta factors are left
    as they are.
    """
    index, found = index_of(model), []
    for i in sorted(index.weighted):
        operator = _describe(model, index, i)
        if operator is not None:
            found.append(operator)
    return found


def _describe(model: Model, index: GraphIndex, i: int) -> LinearOperator | None:
    node = index.nodes[i]
    kind = ops.qualified(node)
    if kind not in ("Conv", "Gemm", "MatMul") or (stored := _operand(index, i, 1)) is None:
        return None
    weight = stored.tensor
    if weight.data_type not in _SOLVABLE or (stored.turned and kind == "Conv"):
        return None
    if kind == "Conv" and len(weight.dims) not in (3, 4):
        return None
    if kind == "MatMul" and len(weight.dims) != 2:
        return None
    if kind == "Gemm" and any(ops.attribute(node, k, d) != d for k, d in _GEMM_DEFAULTS.items()):
        return None
    transposed = stored.turned != (kind == "Gemm" and ops.attribute(node, "transB", 0) == 1)
    outputs = weight.dims[0] if kind == "Conv" or transposed else weight.dims[1]
    own = _operand(index, i, 2)
    bias = own.place if own is not None and _is_bias(own, outputs) else None
    scale, bias_scale = np.ones(outputs), np.ones(outputs)
    target = node.output[0]
    behind = len(weight.dims) - 2 if kind == "Conv" else 0
    while (step := _affine_step(model, index, target, outputs, behind)) is not None:
        scale = scale * step.factor
        bias_scale = bias_scale * step.factor
        if bias is None and step.constant is not None and step.constant.size == outputs:
            bias, bias_scale = step.constant.place, np.ones(outputs)
        target = step.output
    return LinearOperator(
        node=i,
        kind=kind,
        input=node.input[0],
        output=node.output[0],
        target=target,
        scale=scale,
        weight=stored.place,
        transposed=transposed,
        bias=bias,
        bias_scale=bias_scale,
        geometry=_geometry(node, weight) if kind == "Conv" else None,
        groups=int(str(ops.attribute(node, "group", 1))) if kind == "Conv" else 1,
    )


@dataclass(frozen=True)
class _Operand:
    """A stored operand: its tensor, who reads that, and whether a transposition lies in between."""

    tensor: onnx.TensorProto
    place: Pair
    turned: bool

    @property
    def size(self) -> int:
        """Number of its values."""
        return int(np.prod(self.tensor.dims))


def _operand(index: GraphIndex, node: int, position: int) -> _Operand | None:
    """What is stored for an input of a node, or handed on to it alone; None for anything else.

    PyTorch's exporters hand on what several operators share, and transpose weights where they don't optimise.
    """
    place, turned = (node, position), False
    name = index.nodes[node].input[position] if position < len(index.nodes[node].input) else ""
    while name in index.handed_on and index.readers[name] == (place[0],) and name not in index.outputs:
        place = index.producer[name], 0
        maker = index.nodes[place[0]]
        if maker.op_type == "Transpose":
            if ops.attribute(maker, "perm", [1, 0]) != [1, 0]:
                return None
            turned = not turned
        name = maker.input[0]
    stored = index.initializers.get(name)
    return None if stored is None else _Operand(stored, place, turned)


_SOLVABLE = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
_GEMM_DEFAULTS: dict[str, object] = {"alpha": 1.0, "beta": 1.0, "transA": 0}


@dataclass(frozen=True)
class _Affine:
    """An affine operator: its factor per channel, what it adds if that is stored, and its output."""

    factor: Float64s
    constant: _Operand | None
    output: str


def _affine_step(model: Model, index: GraphIndex, tensor: str, outputs: int, behind: int) -> _Affine | None:
    """The next affine operator behind a tensor that nothing else reads; None where the way ends.

    The tensor has `behind` axes behind that of its channels.
    """
    readers = index.readers.get(tensor, ())
    if len(readers) != 1 or tensor in index.outputs:
        return None
    reader = readers[0]
    node = index.nodes[reader]
    if node.op_type == "BatchNormalization" and behind:
        stored = [index.initializers.get(index.source(name)) for name in (node.input[1], node.input[4])]
        beta = _operand(index, reader, 2)
        if beta is None or None in stored:
            return None
        gamma, variance = (model.value(tensor).astype(np.float64) for tensor in stored if tensor is not None)
        epsilon = float(str(ops.attribute(node, "epsilon", 1e-5)))
        if gamma.shape != variance.shape:
            return None
        return _Affine(gamma / np.sqrt(variance + epsilon), beta, node.output[0])
    if node.op_type not in ("Add", "Mul") or list(node.input).count(tensor) != 1:
        return None
    position = 1 if node.input[0] == tensor else 0
    other = node.input[position]
    constant = _operand(index, reader, position)
    per_channel = constant is not None and _per_channel(constant, outputs, behind)
    if node.op_type == "Mul":
        if constant is None or not per_channel:
            return None
        factor = np.broadcast_to(model.value(constant.tensor).astype(np.float64).reshape(-1), (outputs,))
        return _Affine(factor, None, node.output[0])
    if other in index.activations:
        return _Affine(np.ones(outputs), None, node.output[0])
    if constant is not None and per_channel:
        return _Affine(np.ones(outputs), constant, node.output[0])
    return None


def _is_bias(stored: _Operand, outputs: int) -> bool:
    """Whether an operand holds a value per channel of the last axis, and one for all samples."""
    dims = stored.tensor.dims
    return stored.size == outputs and (not dims or dims[-1] == outputs)


def _per_channel(constant: _Operand, outputs: int, behind: int) -> bool:
    """Whether a constant is one value, or one for each channel of the operator's output."""
    sizes, count = list(constant.tensor.dims), constant.size
    if constant.turned:
        sizes.reverse()
    return count == 1 or (count == outputs and len(sizes) > behind and sizes[-1 - behind] == outputs)


def _geometry(node: onnx.NodeProto, weight: onnx.TensorProto) -> Geometry:
    mode = ops.attribute(node, "auto_pad", b"NOTSET")
    auto = mode.decode() if isinstance(mode, bytes) else "NOTSET"
    axes = len(weight.dims) - 2
    return Geometry(
        kernel=_pair(list(weight.dims[2:]), 1),
        strides=_pair(_ints(node, "strides"), 1),
        dilations=_pair(_ints(node, "dilations"), 1),
        before=_pair(_ints(node, "pads")[:axes] if auto == "NOTSET" else [], 0),
        auto_pad="NOTSET" if auto == "VALID" else auto,
    )


def _ints(node: onnx.NodeProto, name: str) -> list[int]:
    value = ops.attribute(node, name, [])
    assert isinstance(value, list)
    return value


def _pair(values: list[int], default: int) -> Pair:
    """Values of both axes; a line is an image of height 1."""
    if len(values) == 2:
        return values[0], values[1]
    return (default, values[0]) if values else (default, default)

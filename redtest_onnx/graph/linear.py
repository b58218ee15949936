"""Linear operators whose weights can be solved for: what they read, what they must hit, where weights lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import Model

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LinearOperator:
    """A convolution or matrix product with the affine steps behind it.

    Attributes:
        node: index of the node.
        kind: "Conv", "Gemm" or "MatMul".
        input: the activation it reads.
        target: the last tensor that its output enters affinely: behind bias, normalisation and the sum with
            a shortcut. To correct `target` by D, the operator must add D / scale to its own output.
        scale: [q] factor per output channel between the operator's output and `target`.
        weight: name of its weights.
        transposed: whether a matrix is stored as [outputs, inputs].
        bias: tensor that holds an additive constant per channel; None where there is none.
        bias_scale: [q] factor from it to `target`.
        bias_node: index of the node that reads it.
        geometry: kernel, strides, dilations and padding in front, each [2]; None for products.
    """

    node: int
    kind: str
    input: str
    target: str
    scale: Floats
    weight: str
    transposed: bool
    bias: str | None
    bias_scale: Floats
    bias_node: int
    geometry: tuple[tuple[int, int], ...] | None


def linear_operators(model: Model, index: GraphIndex) -> list[LinearOperator]:
    """All operators of the main graph that a fit can change, in graph order.

    Those with grouped or not two-dimensional convolutions, computed weights, or alpha and beta factors are
    left as they are.
    """
    found = []
    for i in sorted(index.weighted):
        operator = _describe(model, index, i)
        if operator is not None:
            found.append(operator)
    return found


def _describe(model: Model, index: GraphIndex, i: int) -> LinearOperator | None:
    node = index.nodes[i]
    kind = ops.qualified(node)
    weight = index.initializers.get(node.input[1]) if len(node.input) > 1 else None
    if kind not in ("Conv", "Gemm", "MatMul") or weight is None or weight.data_type not in _SOLVABLE:
        return None
    if kind == "Conv" and (ops.attribute(node, "group", 1) != 1 or len(weight.dims) != 4):
        return None
    if kind == "Conv" and ops.attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    if kind == "MatMul" and len(weight.dims) != 2:
        return None
    if kind == "Gemm" and any(ops.attribute(node, k, d) != d for k, d in _GEMM_DEFAULTS.items()):
        return None
    transposed = kind == "Gemm" and ops.attribute(node, "transB", 0) == 1
    outputs = weight.dims[0] if kind == "Conv" or transposed else weight.dims[1]
    bias = node.input[2] if len(node.input) > 2 and node.input[2] in index.initializers else None
    scale, bias_scale, bias_node = np.ones(outputs), np.ones(outputs), i
    target = node.output[0]
    while (step := _affine_step(model, index, target, outputs, kind)) is not None:
        scale = scale * step.factor
        bias_scale = bias_scale * step.factor
        if bias is None and step.constant is not None:
            bias, bias_scale, bias_node = step.constant, np.ones(outputs), step.node
        target = step.output
    if bias is not None and list(index.initializers[bias].dims) != [outputs]:
        bias = None
    return LinearOperator(
        node=i,
        kind=kind,
        input=node.input[0],
        target=target,
        scale=scale,
        weight=weight.name,
        transposed=transposed,
        bias=bias,
        bias_scale=bias_scale,
        bias_node=bias_node,
        geometry=_geometry(node, weight) if kind == "Conv" else None,
    )


_SOLVABLE = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
_GEMM_DEFAULTS: dict[str, object] = {"alpha": 1.0, "beta": 1.0, "transA": 0}


@dataclass(frozen=True)
class _Affine:
    """An affine operator: its node, factor per channel, the constant it adds (or none), and its output."""

    node: int
    factor: Floats
    constant: str | None
    output: str


def _affine_step(model: Model, index: GraphIndex, tensor: str, outputs: int, kind: str) -> _Affine | None:
    """The next affine operator behind a tensor that nothing else reads; None where the way ends."""
    readers = index.readers.get(tensor, ())
    if len(readers) != 1 or tensor in index.outputs:
        return None
    reader = readers[0]
    node = index.nodes[reader]
    if node.op_type == "BatchNormalization" and kind == "Conv":
        if any(name not in index.initializers for name in node.input[1:5]):
            return None
        gamma, _, _, variance = (
            model.value(index.initializers[name]).astype(np.float64) for name in node.input[1:5]
        )
        epsilon = float(str(ops.attribute(node, "epsilon", 1e-5)))
        return _Affine(reader, gamma / np.sqrt(variance + epsilon), node.input[2], node.output[0])
    if node.op_type == "Add":
        other = node.input[1] if node.input[0] == tensor else node.input[0]
        if other in index.activations and other != tensor:
            return _Affine(reader, np.ones(outputs), None, node.output[0])
        constant = index.initializers.get(other)
        if constant is not None and list(constant.dims) == [outputs] and kind != "Conv":
            return _Affine(reader, np.ones(outputs), other, node.output[0])
    return None


def _geometry(node: onnx.NodeProto, weight: onnx.TensorProto) -> tuple[tuple[int, int], ...]:
    """Kernel, strides, dilations, padding in front."""
    padded = ops.attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
    pads = _ints(node, "pads", (0, 0)) if padded else (0, 0)
    kernel = (weight.dims[2], weight.dims[3])
    return kernel, _ints(node, "strides", (1, 1)), _ints(node, "dilations", (1, 1)), pads


def _ints(node: onnx.NodeProto, name: str, default: tuple[int, ...]) -> tuple[int, int]:
    value = ops.attribute(node, name, default)
    assert isinstance(value, list | tuple)
    return int(value[0]), int(value[1])

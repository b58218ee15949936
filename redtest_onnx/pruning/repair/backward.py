"""The transpose of a linear operator as a small model: what an error behind it asks of its input."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from redtest_onnx.graph.linear_operators import Geometry, LinearOperator
from redtest_onnx.graph.model import Model

GRAD_OUTPUT, GRAD_INPUT = "error", "wish"
_OPSET = 13


def backward_model(
    operator: LinearOperator, weight: npt.NDArray[np.float64], size: tuple[int, ...], out: tuple[int, ...]
) -> Model:
    """A model that multiplies by the transpose of an operator.

    Args:
        operator: the operator.
        weight: its weights as `matrix` of `effective_weight` has them.
        size: spatial sizes of its input, none for products.
        out: those of its output.

    Returns:
        A model from `GRAD_OUTPUT` [n, M, ...] to `GRAD_INPUT` [n, C, ...] (products: channels last), float32.
    """
    kernel = weight.astype(np.float32)
    if operator.geometry is None:
        node = helper.make_node("MatMul", [GRAD_OUTPUT, "weight"], [GRAD_INPUT])
    else:
        node = helper.make_node("ConvTranspose", [GRAD_OUTPUT, "weight"], [GRAD_INPUT], group=operator.groups)
        attributes = _transposed(operator.geometry, size, out)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    sizes: list[str | int | None] = ["n", "m", *out]
    graph = helper.make_graph(
        [node],
        "adjoint",
        [helper.make_tensor_value_info(GRAD_OUTPUT, TensorProto.FLOAT, sizes if out else None)],
        [onnx.ValueInfoProto(name=GRAD_INPUT)],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(kernel), "weight")],
    )
    return Model(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", _OPSET)]))


def effective_weight(operator: LinearOperator, stored: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """An operator's weights times its factor up to its target: [M, C / groups, kh, kw], or [M, C]."""
    weight: npt.NDArray[np.float64] = stored.astype(np.float64)
    if operator.kind != "Conv":
        matrix: npt.NDArray[np.float64] = weight if operator.transposed else weight.T
        return matrix * operator.scale[:, None]
    if weight.ndim == 3:
        weight = weight[:, :, None]
    return weight * operator.scale[:, None, None, None]


def input_metric(operator: LinearOperator, weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Inner products of what the channels of its input do to the target, [C, C], summed over the kernel."""
    outputs, inputs = weight.shape[0] // operator.groups, weight.shape[1]
    metric = np.zeros((inputs * operator.groups,) * 2)
    for group in range(operator.groups):
        part = weight[group * outputs : (group + 1) * outputs].reshape(outputs, inputs, -1)
        own = slice(group * inputs, (group + 1) * inputs)
        metric[own, own] = np.einsum("oik,ojk->ij", part, part)
    return metric


def _transposed(geometry: Geometry, size: tuple[int, ...], out: tuple[int, ...]) -> dict[str, list[int]]:
    """Attributes of the transposed convolution that leads from an output's sizes back to the input's."""
    before = geometry.padding((size[0], size[1]), (out[0], out[1]))
    reach = [
        (o - 1) * s + (k - 1) * d + 1
        for o, s, k, d in zip(out, geometry.strides, geometry.kernel, geometry.dilations, strict=True)
    ]
    behind = [r - b - n for r, b, n in zip(reach, before, size, strict=True)]
    return {
        "kernel_shape": list(geometry.kernel),
        "strides": list(geometry.strides),
        "dilations": list(geometry.dilations),
        "pads": [*before, *(max(b, 0) for b in behind)],
        "output_padding": [max(-b, 0) for b in behind],
    }

"""A linear operator and its transpose as small models that are fed their weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from redtest_onnx.graph.linear_operators import Geometry, LinearOperator
from redtest_onnx.graph.model import Model

SOURCE, WEIGHT, RESULT = "source", "weight", "result"
_OPSET = 13


def forward_model(operator: LinearOperator, size: tuple[int, ...], out: tuple[int, ...]) -> Model:
    """A model that applies an operator without its bias.

    Args:
        operator: the operator.
        size: spatial sizes of its input, none for products.
        out: those of its output.

    Returns:
        A model from `SOURCE` [n, C, ...] (products: channels last) and `WEIGHT`, as in
        `effective_weight`, to `RESULT` [n, M, ...], all float32.
    """
    if operator.geometry is None:
        turn = helper.make_node("Transpose", [WEIGHT], ["turned"], perm=[1, 0])
        return _model([turn, helper.make_node("MatMul", [SOURCE, "turned"], [RESULT])], None)
    geometry = operator.geometry
    before = geometry.padding((size[0], size[1]), (out[0], out[1]))
    behind = [max(reach - b - n, 0) for reach, b, n in zip(_reach(geometry, out), before, size, strict=True)]
    node = helper.make_node(
        "Conv",
        [SOURCE, WEIGHT],
        [RESULT],
        group=operator.groups,
        kernel_shape=list(geometry.kernel),
        strides=list(geometry.strides),
        dilations=list(geometry.dilations),
        pads=[*before, *behind],
    )
    return _model([node], ["n", "c", *size])


def backward_model(operator: LinearOperator, size: tuple[int, ...], out: tuple[int, ...]) -> Model:
    """A model that multiplies by the transpose of an operator.

    Args:
        operator: the operator.
        size: spatial sizes of its input, none for products.
        out: those of its output.

    Returns:
        A model from `SOURCE` [n, M, ...] (products: channels last) and `WEIGHT`, as in
        `effective_weight`, to `RESULT` [n, C, ...], all float32.
    """
    if operator.geometry is None:
        return _model([helper.make_node("MatMul", [SOURCE, WEIGHT], [RESULT])], None)
    node = helper.make_node("ConvTranspose", [SOURCE, WEIGHT], [RESULT], group=operator.groups)
    attributes = _transposed(operator.geometry, size, out)
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    return _model([node], ["n", "m", *out])


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
        rows = part.transpose(0, 2, 1).reshape(-1, inputs)
        own = slice(group * inputs, (group + 1) * inputs)
        metric[own, own] = rows.T @ rows
    return metric


def _model(nodes: list[onnx.NodeProto], sizes: list[str | int] | None) -> Model:
    graph = helper.make_graph(
        nodes,
        "operator",
        [
            helper.make_tensor_value_info(SOURCE, TensorProto.FLOAT, sizes),
            helper.make_tensor_value_info(WEIGHT, TensorProto.FLOAT, None),
        ],
        [onnx.ValueInfoProto(name=RESULT)],
    )
    return Model(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", _OPSET)]))


def _reach(geometry: Geometry, out: tuple[int, ...]) -> list[int]:
    """How far the windows of an output of such sizes reach along each axis of the padded input."""
    return [
        (o - 1) * s + (k - 1) * d + 1
        for o, s, k, d in zip(out, geometry.strides, geometry.kernel, geometry.dilations, strict=True)
    ]


def _transposed(geometry: Geometry, size: tuple[int, ...], out: tuple[int, ...]) -> dict[str, list[int]]:
    """Attributes of the transposed convolution that leads from an output's sizes back to the input's."""
    before = geometry.padding((size[0], size[1]), (out[0], out[1]))
    behind = [r - b - n for r, b, n in zip(_reach(geometry, out), before, size, strict=True)]
    return {
        "kernel_shape": list(geometry.kernel),
        "strides": list(geometry.strides),
        "dilations": list(geometry.dilations),
        "pads": [*before, *(max(b, 0) for b in behind)],
        "output_padding": [max(-b, 0) for b in behind],
    }

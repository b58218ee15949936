"""What products, convolutions, recurrent operators and normalisations tell of axes; see `axes`."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.axes import Axes, Axis, AxisFlow, broadcast
from redtest_onnx.graph.axis_shape_rules import integer

Rule = Callable[[AxisFlow, onnx.NodeProto], None]


def _contract(one: Axis, other: Axis) -> None:
    """Note that an operator sums over axes that are as long."""
    one.join(other)
    one.use("contracted")
    other.use("contracted")  # two of known sizes stay apart


def batch_normalisation_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Normalisation by channel: the scale is as long as the second axis."""
    axes = flow.axes(node, 0)
    if len(axes) > 1 and flow.has(node, 1):
        axes[1].join(flow.axes(node, 1)[0])
    flow.make(node, axes)


def layer_normalisation_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Normalisation of the last axes: the scale has them."""
    axes = flow.axes(node, 0)
    scale = flow.axes(node, 1)
    for axis, other in zip(reversed(axes), reversed(scale), strict=False):
        axis.join(other)
    flow.make(node, axes)


def skip_layer_normalisation_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """As layer normalisation, of a sum."""
    if flow.has(node, 2):
        flow.axes(node, 0)[-1].join(flow.axes(node, 2)[-1])
    flow.make(node, broadcast(flow.axes(node, 0), flow.axes(node, 1)))


def product_of(a: int, b: int) -> Rule:
    """A matrix product of two operands."""

    def rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
        if not flow.has(node, a):
            return
        left = flow.axes(node, a)
        if not flow.has(node, b):
            return
        right = flow.axes(node, b)
        _contract(left[-1], right[-2] if len(right) > 1 else right[0])
        lead = broadcast(left[:-2], right[:-2]) if left[:-2] or right[:-2] else []
        rows = [left[-2]] if len(left) > 1 else []
        columns = [right[-1]] if len(right) > 1 else []
        flow.make(node, [*lead, *rows, *columns])

    return rule


def fused_matmul_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """com.microsoft FusedMatMul: a product of turned operands."""
    left, right = list(flow.axes(node, 0)), list(flow.axes(node, 1))
    assert not integer(node, "transBatchA", 0)
    assert not integer(node, "transBatchB", 0)
    if integer(node, "transA", 0):
        left[-2:] = left[:-3:-1]
    if integer(node, "transB", 0):
        right[-2:] = right[:-3:-1]
    _contract(left[-1], right[-2])
    flow.make(
        node,
        [*broadcast(tuple(left[:-2]), tuple(right[:-2])), left[-2], right[-1]]
        if len(left) > 2 or len(right) > 2
        else [left[-2], right[-1]],
    )


def gemm_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Gemm: a product of two matrices, perhaps turned."""
    left = flow.axes(node, 0)[:: -1 if integer(node, "transA", 0) else 1]
    position = 1 if ops.qualified(node) != ops.MS + "QGemm" else 3
    right = flow.axes(node, position)[:: -1 if integer(node, "transB", 0) else 1]
    _contract(left[1], right[0])
    flow.make(node, [left[0], right[1]])


def n_bits_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Products with packed weights, whose sizes are attributes."""
    axes = flow.axes(node, 0)
    _contract(axes[-1], Axis(integer(node, "K", 0)))
    flow.make(node, [*axes[:-1], Axis(integer(node, "N", 0))])


def convolution(weight: int) -> Rule:
    """A convolution whose weights are at the given position."""

    def rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
        axes = flow.axes(node, 0)
        axes[0].use("samples")
        for axis in axes[2:]:
            axis.use("positions")
            if len(axes) > 3:
                axis.use("image")
        if not flow.has(node, weight):
            flow.make(node, [axes[0], *[None] * len(axes[1:])])
            return
        kernel = flow.axes(node, weight)
        groups = integer(node, "group", 1)
        if ops.qualified(node) == "ConvTranspose":
            axes[1].join(kernel[0])
            if groups == 1:
                axes[1].use("contracted")
            size = kernel[1].size
            outputs: Axis | None = Axis(size * groups) if size is not None else None
        else:
            if kernel[1].size is not None:
                axes[1].join(Axis(kernel[1].size * groups))
            if groups == 1 or kernel[1].size != 1:
                axes[1].use("contracted")
            outputs = kernel[0]
        made = [_position(node, k, axis, kernel) for k, axis in enumerate(axes[2:])]
        flow.make(node, [axes[0], outputs, *made])

    return rule


def _position(node: onnx.NodeProto, k: int, axis: Axis, kernel: Axes) -> Axis | None:
    """A position axis behind a convolution: the same where padding makes up for the kernel."""
    size = kernel[2 + k].size
    strides, dilations = (ops.attribute(node, name) or [1] * 9 for name in ("strides", "dilations"))
    pads, auto = ops.attribute(node, "pads") or [0] * 18, ops.attribute(node, "auto_pad", b"NOTSET")
    assert isinstance(strides, list)
    assert isinstance(dilations, list)
    assert isinstance(pads, list)
    if size is None or strides[k] != 1 or ops.qualified(node) == "ConvTranspose":
        return None
    total = pads[k] + pads[k + (len(kernel) - 2 if len(pads) < 18 else 9)]
    same = auto in (b"SAME_UPPER", b"SAME_LOWER") or total == dilations[k] * (size - 1)
    return axis if same else None


def pool_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Pooling: samples and channels stay, positions change."""
    axes = flow.axes(node, 0)
    axes[0].use("samples")
    for axis in axes[2:]:
        axis.use("positions")
        if len(axes) > 3:
            axis.use("image")
    whole = node.op_type.startswith("Global")
    flow.make(node, [*axes[:2], *[Axis(1) if whole else None for _ in axes[2:]]])


def recurrent_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Recurrent operators: steps, samples and features."""
    axes = flow.axes(node, 0)
    steps, samples = (axes[1], axes[0]) if integer(node, "layout", 0) else (axes[0], axes[1])
    samples.use("samples")
    steps.use("steps")
    packed = ops.qualified(node).startswith(ops.MS)  # [directions, input, gates * hidden]
    directions: Axis = Axis()
    if flow.has(node, 1):
        weights = flow.axes(node, 1)
        _contract(axes[2], weights[1 if packed else 2])
        directions = weights[0]
    hidden = Axis(integer(node, "hidden_size", 0) or None)
    if len(node.input) > 4 and flow.has(node, 4):
        flow.axes(node, 4)[0].join(samples)
    for position in (5, 6):
        if flow.has(node, position):
            state = flow.axes(node, position)
            for axis, other in zip(state, (directions, samples, hidden), strict=True):
                axis.join(other)
    state_axes = (
        [samples, directions, hidden] if integer(node, "layout", 0) else [directions, samples, hidden]
    )
    whole = (
        [samples, steps, directions, hidden]
        if integer(node, "layout", 0)
        else [steps, directions, samples, hidden]
    )
    flow.make(node, whole)
    for position in range(1, len(node.output)):
        flow.make(node, state_axes, position)


def attention_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """com.microsoft's, with its projections [width, 3 * hidden] inside."""
    axes, weights = flow.axes(node, 0), flow.axes(node, 1)
    _contract(axes[-1], weights[0])
    size = weights[1].size
    flow.make(node, [*axes[:-1], Axis(size // 3) if size is not None else None])


def embeddings_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """com.microsoft EmbedLayerNormalization: an axis of features more."""
    flow.make(node, [*flow.axes(node, 0), flow.axes(node, 2)[-1]])


def einsum_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Einsum: axes of one letter are as long."""
    equation = ops.attribute(node, "equation", b"")
    assert isinstance(equation, bytes)
    left, _, right = equation.decode().replace(" ", "").partition("->")
    assert right
    assert "." not in left
    named: dict[str, Axis] = {}
    for term, name in zip(left.split(","), node.input, strict=True):
        for letter, axis in zip(term, flow.tensors[name], strict=True):
            named.setdefault(letter, axis).join(axis)
            if letter not in right:
                axis.use("contracted")
    flow.make(node, [named[letter] for letter in right])

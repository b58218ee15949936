"""What single operators do to the axes of what they read; see `axes`."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.axes import Axes, Axis, AxisFlow, Sizes, broadcast

Rule = Callable[[AxisFlow, onnx.NodeProto], None]


def _int(node: onnx.NodeProto, name: str, default: int) -> int:
    return int(str(ops.attribute(node, name, default)))


def _constant(flow: AxisFlow, node: onnx.NodeProto) -> None:
    flow.store_constant(node)


def _keep(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """The result has the axes of the first operand."""
    flow.make(node, flow.axes(node, 0))
    if node.input[0] in flow.sizes:
        flow.sizes[node.output[0]] = flow.sizes[node.input[0]]
    if node.input[0] in flow.ranges:
        flow.ranges[node.output[0]] = flow.ranges[node.input[0]]


def _elementwise(flow: AxisFlow, node: onnx.NodeProto) -> None:
    known = [flow.tensors[name] for name in node.input if name in flow.tensors]
    if len(known) == len([name for name in node.input if name]):
        flow.make(node, broadcast(*known))


def _batch_normalisation(flow: AxisFlow, node: onnx.NodeProto) -> None:
    axes = flow.axes(node, 0)
    if len(axes) > 1 and flow.has(node, 1):
        axes[1].join(flow.axes(node, 1)[0])
    flow.make(node, axes)


def _layer_normalisation(flow: AxisFlow, node: onnx.NodeProto) -> None:
    axes = flow.axes(node, 0)
    scale = flow.axes(node, 1)
    for axis, other in zip(reversed(axes), reversed(scale), strict=False):
        axis.join(other)
    flow.make(node, axes)


def _skip_layer_normalisation(flow: AxisFlow, node: onnx.NodeProto) -> None:
    if flow.has(node, 2):
        flow.axes(node, 0)[-1].join(flow.axes(node, 2)[-1])
    flow.make(node, broadcast(flow.axes(node, 0), flow.axes(node, 1)))


def _shape(flow: AxisFlow, node: onnx.NodeProto) -> None:
    axes = flow.axes(node, 0)
    end = ops.attribute(node, "end")
    chosen: Sizes = axes[_int(node, "start", 0) : None if end is None else int(str(end))]
    flow.sizes[node.output[0]] = tuple(
        axis.size if isinstance(axis, Axis) and axis.size is not None else axis for axis in chosen
    )
    flow.make(node, [Axis(len(chosen))])


def _range(flow: AxisFlow, node: onnx.NodeProto) -> None:
    start, limit = flow.sizes[node.input[0]][0], flow.sizes[node.input[1]][0]
    if start != 0 or limit is None:
        flow.make(node, [None])
        return
    axis = limit if isinstance(limit, Axis) else Axis(limit)
    flow.make(node, [axis])
    flow.ranges[node.output[0]] = axis


def _gather(flow: AxisFlow, node: onnx.NodeProto) -> None:
    if node.input[0] in flow.sizes and node.input[1] in flow.sizes:
        chosen = flow.constants(node.input[1])
        if chosen is not None:
            flow.sizes[node.output[0]] = tuple(flow.sizes[node.input[0]][k] for k in chosen)
    axes, indices = flow.axes(node, 0), flow.axes(node, 1)
    axis = _int(node, "axis", 0) % len(axes)
    if node.input[1] in flow.fed:
        axes[axis].use("indexed")
    flow.make(node, (*axes[:axis], *indices, *axes[axis + 1 :]))


def _scatter(flow: AxisFlow, node: onnx.NodeProto) -> None:
    axes = flow.axes(node, 0)
    if node.input[1] in flow.fed:
        axes[_int(node, "axis", 0) % len(axes)].use("indexed")
    flow.make(node, axes)


def _unsqueeze(flow: AxisFlow, node: onnx.NodeProto) -> None:
    if node.input[0] in flow.sizes:
        flow.sizes[node.output[0]] = flow.sizes[node.input[0]]
    if node.input[0] in flow.ranges:
        flow.ranges[node.output[0]] = flow.ranges[node.input[0]]
    axes, where = list(flow.axes(node, 0)), flow.axes_operand(node)
    assert where is not None
    rank = len(axes) + len(where)
    for k in sorted(axis % rank for axis in where):
        axes.insert(k, Axis(1))
    flow.make(node, axes)


def _squeeze(flow: AxisFlow, node: onnx.NodeProto) -> None:
    if node.input[0] in flow.sizes:
        flow.sizes[node.output[0]] = flow.sizes[node.input[0]]
    axes, where = flow.axes(node, 0), flow.axes_operand(node)
    assert where is not None
    dropped = {axis % len(axes) for axis in where}
    flow.make(node, [axis for k, axis in enumerate(axes) if k not in dropped])


def _transpose(flow: AxisFlow, node: onnx.NodeProto) -> None:
    axes = flow.axes(node, 0)
    order = ops.attribute(node, "perm", list(reversed(range(len(axes)))))
    assert isinstance(order, list | tuple)
    flow.make(node, [axes[int(str(k))] for k in order])


def _reshape(flow: AxisFlow, node: onnx.NodeProto) -> None:
    axes, wanted = flow.axes(node, 0), flow.sizes[node.input[1]]
    made: list[Axis | None] = []
    for k, size in enumerate(wanted):
        if isinstance(size, Axis):
            made.append(size)
        elif size == 0 and not _int(node, "allowzero", 0):
            made.append(axes[k])
        else:
            made.append(Axis(size) if size is not None and size > 0 else None)
    _resolve_rest(axes, wanted, made)
    if node.input[0] in flow.sizes and len(made) <= 1:
        flow.sizes[node.output[0]] = flow.sizes[node.input[0]]
    flow.make(node, made)


def _resolve_rest(axes: Axes, wanted: Sizes, made: list[Axis | None]) -> None:
    """Find the one axis that a reshape leaves over: [N, T, D] as [-1, D] with N and T, or [0, -1, D]."""
    opened = [k for k, size in enumerate(wanted) if size == -1]
    if len(opened) != 1:
        return
    others = [axis for k, axis in enumerate(made) if k not in opened and axis is not None]
    left = list(axes)
    rest = 1
    for axis in others:
        match = next((one for one in left if one.root is axis.root), None)
        match = match or next((one for one in left if one.size is not None and one.size == axis.size), None)
        if match is not None:
            left.remove(match)
        elif axis.size is not None:
            rest *= axis.size
        else:
            return
    known = 1
    for axis in left:
        known *= axis.size or 1
    unknown = [axis for axis in left if axis.size is None]
    if rest == known and len(unknown) == 1:
        made[opened[0]] = unknown[0]
    elif not unknown and rest and known % rest == 0:
        made[opened[0]] = Axis(known // rest)


def _flatten(flow: AxisFlow, node: onnx.NodeProto) -> None:
    axes = flow.axes(node, 0)
    cut = _int(node, "axis", 1)
    cut = cut % len(axes) if cut < 0 else cut
    flow.make(node, [_product(axes[:cut]), _product(axes[cut:])])


def _product(axes: Axes) -> Axis | None:
    wide = [axis for axis in axes if axis.size != 1]
    if len(wide) == 1:
        return wide[0]
    size = 1
    for axis in wide:
        if axis.size is None:
            return None
        size *= axis.size
    return Axis(size)


def _concat(flow: AxisFlow, node: onnx.NodeProto) -> None:
    if all(name in flow.sizes for name in node.input):
        flow.sizes[node.output[0]] = tuple(size for name in node.input for size in flow.sizes[name])
    operands = [flow.tensors[name] for name in node.input]
    where = _int(node, "axis", 0) % len(operands[0])
    made: list[Axis | None] = []
    for k, axis in enumerate(operands[0]):
        if k == where:
            sizes = [axes[k].size for axes in operands]
            made.append(Axis(sum(size or 0 for size in sizes)) if None not in sizes else None)
            continue
        for axes in operands[1:]:
            axis.join(axes[k])
        made.append(axis)
    flow.make(node, made)


def _slice(flow: AxisFlow, node: onnx.NodeProto) -> None:
    axes = flow.axes(node, 0)
    where = flow.axes_operand(node, 3)
    if where is None:
        starts = ops.attribute(node, "starts") or (
            flow.constants(node.input[1]) if len(node.input) > 1 else None
        )
        assert isinstance(starts, list | tuple)
        assert len(node.input) < 4
        where = tuple(range(len(starts)))
    if len(axes) == 1 and node.input[0] in flow.sizes and len(node.input) > 2:
        first, last = flow.constants(node.input[1]), flow.constants(node.input[2])
        step = flow.constants(node.input[4]) if len(node.input) > 4 else (1,)
        if first and last and step:
            flow.sizes[node.output[0]] = flow.sizes[node.input[0]][first[0] : last[0] : step[0]]
    changed = {axis % len(axes) for axis in where}
    flow.make(node, [None if k in changed else axis for k, axis in enumerate(axes)])


def _split(flow: AxisFlow, node: onnx.NodeProto) -> None:
    axes = flow.axes(node, 0)
    where = _int(node, "axis", 0) % len(axes)
    for position in range(len(node.output)):
        made: list[Axis | None] = [None if k == where else axis for k, axis in enumerate(axes)]
        size = axes[where].size
        if size is not None and len(node.input) < 2 and ops.attribute(node, "split") is None:
            made[where] = Axis(-(-size // len(node.output)))
        flow.make(node, made, position)


def _same_rank(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Pad, Resize and Tile change sizes in a way that is not followed; samples and channels mostly stay."""
    flow.make(node, [None] * len(flow.axes(node, 0)))


def _resize(flow: AxisFlow, node: onnx.NodeProto) -> None:
    axes = flow.axes(node, 0)
    flow.make(node, [*axes[:2], *[None] * len(axes[2:])])


def _expand(flow: AxisFlow, node: onnx.NodeProto) -> None:
    target = [
        size if isinstance(size, Axis) else Axis(size if size is None or size > 0 else None)
        for size in flow.sizes[node.input[1]]
    ]
    flow.make(node, broadcast(flow.axes(node, 0), tuple(target)))


def _constant_of_shape(flow: AxisFlow, node: onnx.NodeProto) -> None:
    sizes = flow.sizes[node.input[0]]
    flow.make(node, [size if isinstance(size, Axis) else Axis(size) for size in sizes])


def _reduce(flow: AxisFlow, node: onnx.NodeProto) -> None:
    axes = flow.axes(node, 0)
    where = flow.axes_operand(node)
    if where is None and ops.qualified(node) in ("ArgMax", "ArgMin"):
        where = (_int(node, "axis", 0),)
    chosen = set(range(len(axes))) if where is None else {axis % len(axes) for axis in where}
    if _int(node, "keepdims", 1):
        flow.make(node, [Axis(1) if k in chosen else axis for k, axis in enumerate(axes)])
    else:
        flow.make(node, [axis for k, axis in enumerate(axes) if k not in chosen])


def _product_of(a: int, b: int) -> Rule:
    """A matrix product of two operands."""

    def rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
        if not flow.has(node, a):
            return
        left = flow.axes(node, a)
        if not flow.has(node, b):
            return
        right = flow.axes(node, b)
        left[-1].join(right[-2] if len(right) > 1 else right[0])
        lead = broadcast(left[:-2], right[:-2]) if left[:-2] or right[:-2] else []
        rows = [left[-2]] if len(left) > 1 else []
        columns = [right[-1]] if len(right) > 1 else []
        flow.make(node, [*lead, *rows, *columns])

    return rule


def _fused_matmul(flow: AxisFlow, node: onnx.NodeProto) -> None:
    left, right = list(flow.axes(node, 0)), list(flow.axes(node, 1))
    assert not _int(node, "transBatchA", 0)
    assert not _int(node, "transBatchB", 0)
    if _int(node, "transA", 0):
        left[-2:] = left[:-3:-1]
    if _int(node, "transB", 0):
        right[-2:] = right[:-3:-1]
    left[-1].join(right[-2])
    flow.make(
        node,
        [*broadcast(tuple(left[:-2]), tuple(right[:-2])), left[-2], right[-1]]
        if len(left) > 2 or len(right) > 2
        else [left[-2], right[-1]],
    )


def _gemm(flow: AxisFlow, node: onnx.NodeProto) -> None:
    left = flow.axes(node, 0)[:: -1 if _int(node, "transA", 0) else 1]
    position = 1 if ops.qualified(node) != ops.MS + "QGemm" else 3
    right = flow.axes(node, position)[:: -1 if _int(node, "transB", 0) else 1]
    left[1].join(right[0])
    flow.make(node, [left[0], right[1]])


def _n_bits(flow: AxisFlow, node: onnx.NodeProto) -> None:
    axes = flow.axes(node, 0)
    axes[-1].join(Axis(_int(node, "K", 0)))
    flow.make(node, [*axes[:-1], Axis(_int(node, "N", 0))])


def _convolution(weight: int) -> Rule:
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
        groups = _int(node, "group", 1)
        if ops.qualified(node) == "ConvTranspose":
            axes[1].join(kernel[0])
            size = kernel[1].size
            outputs: Axis | None = Axis(size * groups) if size is not None else None
        else:
            if kernel[1].size is not None:
                axes[1].join(Axis(kernel[1].size * groups))
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


def _pool(flow: AxisFlow, node: onnx.NodeProto) -> None:
    axes = flow.axes(node, 0)
    axes[0].use("samples")
    for axis in axes[2:]:
        axis.use("positions")
        if len(axes) > 3:
            axis.use("image")
    whole = node.op_type.startswith("Global")
    flow.make(node, [*axes[:2], *[Axis(1) if whole else None for _ in axes[2:]]])


def _recurrent(flow: AxisFlow, node: onnx.NodeProto) -> None:
    axes = flow.axes(node, 0)
    steps, samples = (axes[1], axes[0]) if _int(node, "layout", 0) else (axes[0], axes[1])
    samples.use("samples")
    steps.use("steps")
    packed = ops.qualified(node).startswith(ops.MS)  # [directions, input, gates * hidden]
    directions: Axis = Axis()
    if flow.has(node, 1):
        weights = flow.axes(node, 1)
        axes[2].join(weights[1 if packed else 2])
        directions = weights[0]
    hidden = Axis(_int(node, "hidden_size", 0) or None)
    if len(node.input) > 4 and flow.has(node, 4):
        flow.axes(node, 4)[0].join(samples)
    for position in (5, 6):
        if flow.has(node, position):
            state = flow.axes(node, position)
            for axis, other in zip(state, (directions, samples, hidden), strict=True):
                axis.join(other)
    state_axes = [samples, directions, hidden] if _int(node, "layout", 0) else [directions, samples, hidden]
    whole = (
        [samples, steps, directions, hidden]
        if _int(node, "layout", 0)
        else [steps, directions, samples, hidden]
    )
    flow.make(node, whole)
    for position in range(1, len(node.output)):
        flow.make(node, state_axes, position)


def _attention(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """com.microsoft's, with its projections [width, 3 * hidden] inside."""
    axes, weights = flow.axes(node, 0), flow.axes(node, 1)
    axes[-1].join(weights[0])
    size = weights[1].size
    flow.make(node, [*axes[:-1], Axis(size // 3) if size is not None else None])


def _embeddings(flow: AxisFlow, node: onnx.NodeProto) -> None:
    flow.make(node, [*flow.axes(node, 0), flow.axes(node, 2)[-1]])


def _one_hot(flow: AxisFlow, node: onnx.NodeProto) -> None:
    axes = list(flow.axes(node, 0))
    where = _int(node, "axis", -1)
    depth = flow.constants(node.input[1])
    axes.insert(where % (len(axes) + 1), Axis(depth[0] if depth else None))
    flow.make(node, axes)


def _einsum(flow: AxisFlow, node: onnx.NodeProto) -> None:
    equation = ops.attribute(node, "equation", b"")
    assert isinstance(equation, bytes)
    left, _, right = equation.decode().replace(" ", "").partition("->")
    assert right
    assert "." not in left
    named: dict[str, Axis] = {}
    for term, name in zip(left.split(","), node.input, strict=True):
        for letter, axis in zip(term, flow.tensors[name], strict=True):
            named.setdefault(letter, axis).join(axis)
    flow.make(node, [named[letter] for letter in right])


_FIRST = (
    (ops.ACTIVATION - {"PRelu"})
    | {
        "Identity",
        "Cast",
        "CastLike",
        "Dropout",
        "Neg",
        "Abs",
        "Sqrt",
        "Reciprocal",
        "Exp",
        "Log",
        "Floor",
        "Ceil",
    }
    | {
        "Round",
        "Sign",
        "Not",
        "Softmax",
        "LogSoftmax",
        "Hardmax",
        "LRN",
        "LpNormalization",
        "CumSum",
        "IsNaN",
    }
    | {"MeanVarianceNormalization", "DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "Trilu"}
    | {"MultiHeadAttention", ops.MS + "MultiHeadAttention", "Attention"}
)
_BINARY = (
    {
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Mod",
        "Min",
        "Max",
        "Sum",
        "Mean",
        "Where",
        "PRelu",
        "And",
        "Or",
        "Xor",
    }
    | {"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "BitShift"}
    | {ops.MS + "BiasGelu", ops.MS + "FastGelu"}
)
_REDUCTIONS = {
    f"Reduce{kind}"
    for kind in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
}

RULES: dict[str, Rule] = {
    "Constant": _constant,
    **dict.fromkeys(_FIRST, _keep),
    **dict.fromkeys(_BINARY, _elementwise),
    **dict.fromkeys(
        ("BatchNormalization", "InstanceNormalization", "GroupNormalization"), _batch_normalisation
    ),
    **dict.fromkeys(
        (
            "LayerNormalization",
            "RMSNormalization",
            "SimplifiedLayerNormalization",
            ops.MS + "LayerNormalization",
        ),
        _layer_normalisation,
    ),
    ops.MS + "SkipLayerNormalization": _skip_layer_normalisation,
    ops.MS + "SkipSimplifiedLayerNormalization": _skip_layer_normalisation,
    "Shape": _shape,
    "Range": _range,
    "Gather": _gather,
    **dict.fromkeys(("ScatterElements", "Scatter", "ScatterND"), _scatter),
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    **dict.fromkeys(("Pad", "Tile"), _same_rank),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    **dict.fromkeys((*_REDUCTIONS, "ArgMax", "ArgMin"), _reduce),
    **dict.fromkeys(
        ("MatMul", "MatMulInteger", ops.MS + "DynamicQuantizeMatMul", ops.MS + "MatMulIntegerToFloat"),
        _product_of(0, 1),
    ),
    ops.MS + "GemmFastGelu": _product_of(0, 1),
    "QLinearMatMul": _product_of(0, 3),
    ops.MS + "FusedMatMul": _fused_matmul,
    **dict.fromkeys(("Gemm", ops.MS + "FusedGemm", ops.MS + "QGemm"), _gemm),
    ops.MS + "MatMulNBits": _n_bits,
    ops.MS + "MatMulBnb4": _n_bits,
    **dict.fromkeys(
        ("Conv", "ConvInteger", "ConvTranspose", "DeformConv", ops.MS + "FusedConv"), _convolution(1)
    ),
    "QLinearConv": _convolution(3),
    **dict.fromkeys(
        ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _pool
    ),
    **dict.fromkeys((*ops.RECURRENT,), _recurrent),
    **dict.fromkeys((ops.MS + "Attention", ops.MS + "QAttention"), _attention),
    ops.MS + "EmbedLayerNormalization": _embeddings,
    "OneHot": _one_hot,
    "Einsum": _einsum,
}

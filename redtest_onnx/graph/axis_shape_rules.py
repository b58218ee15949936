"""What operators that move values around do to the axes of what they read; see `axes`."""

from __future__ import annotations

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.axes import Axes, Axis, AxisFlow, Sizes, broadcast


def integer(node: onnx.NodeProto, name: str, default: int) -> int:
    """An attribute that is a number."""
    return int(str(ops.attribute(node, name, default)))


def constant_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Constant: its sizes, and its values where it holds sizes."""
    flow.store_constant(node)


def keep_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """The result has the axes of the first operand."""
    flow.make(node, flow.axes(node, 0))
    if node.input[0] in flow.sizes:
        flow.sizes[node.output[0]] = flow.sizes[node.input[0]]
    if node.input[0] in flow.ranges:
        flow.ranges[node.output[0]] = flow.ranges[node.input[0]]


def elementwise_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Elementwise operators broadcast: axes that meet are as long."""
    known = [name for name in node.input if name in flow.tensors]
    if len(known) == len([name for name in node.input if name]):
        # The result goes on with the axes of what is fed, not with those of a scale in front of it.
        known.sort(key=lambda name: name in flow.stored)
        flow.make(node, broadcast(*(flow.tensors[name] for name in known)))


def shape_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Shape: the result holds the sizes of axes."""
    axes = flow.axes(node, 0)
    end = ops.attribute(node, "end")
    chosen: Sizes = axes[integer(node, "start", 0) : None if end is None else int(str(end))]
    flow.sizes[node.output[0]] = tuple(
        axis.size if isinstance(axis, Axis) and axis.size is not None else axis for axis in chosen
    )
    flow.make(node, [Axis(len(chosen))])


def range_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Range: positions along an axis where its limit is a size."""
    start, limit = flow.sizes[node.input[0]][0], flow.sizes[node.input[1]][0]
    if start != 0 or limit is None:
        flow.make(node, [None])
        return
    axis = limit if isinstance(limit, Axis) else Axis(limit)
    flow.make(node, [axis])
    flow.ranges[node.output[0]] = axis


def gather_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Gather: the axes of the indices take the place of one."""
    if node.input[0] in flow.sizes and node.input[1] in flow.sizes:
        chosen = flow.constants(node.input[1])
        if chosen is not None:
            flow.sizes[node.output[0]] = tuple(flow.sizes[node.input[0]][k] for k in chosen)
    axes, indices = flow.axes(node, 0), flow.axes(node, 1)
    axis = integer(node, "axis", 0) % len(axes)
    if node.input[1] in flow.fed:
        axes[axis].use("indexed")
    flow.make(node, (*axes[:axis], *indices, *axes[axis + 1 :]))


def scatter_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Scatter: the result has the axes of the first operand."""
    axes = flow.axes(node, 0)
    if node.input[1] in flow.fed:
        axes[integer(node, "axis", 0) % len(axes)].use("indexed")
    flow.make(node, axes)


def unsqueeze_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Unsqueeze: axes of size 1 more."""
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


def squeeze_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Squeeze: axes fewer."""
    if node.input[0] in flow.sizes:
        flow.sizes[node.output[0]] = flow.sizes[node.input[0]]
    axes, where = flow.axes(node, 0), flow.axes_operand(node)
    assert where is not None
    dropped = {axis % len(axes) for axis in where}
    flow.make(node, [axis for k, axis in enumerate(axes) if k not in dropped])


def transpose_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Transpose: axes in another order."""
    axes = flow.axes(node, 0)
    order = ops.attribute(node, "perm", list(reversed(range(len(axes)))))
    assert isinstance(order, list | tuple)
    flow.make(node, [axes[int(str(k))] for k in order])


def reshape_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Reshape to sizes that are known or those of axes."""
    axes, wanted = flow.axes(node, 0), flow.sizes[node.input[1]]
    made: list[Axis | None] = []
    for k, size in enumerate(wanted):
        if isinstance(size, Axis):
            made.append(size)
        elif size == 0 and not integer(node, "allowzero", 0):
            made.append(axes[k])
        else:
            made.append(Axis(size) if size is not None and size > 0 else None)
    _resolve_rest(axes, wanted, made)
    _keep_wide(axes, made)
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


def _keep_wide(axes: Axes, made: list[Axis | None]) -> None:
    """Go on with the axes of a tensor that only gets or loses axes of size 1: [20] as [1, 20]."""
    before = [axis for axis in axes if axis.size != 1]
    places = [k for k, axis in enumerate(made) if axis is None or axis.size != 1]
    after = [axis.size for k, axis in enumerate(made) if k in places and axis is not None]
    if None not in after and [axis.size for axis in before] == after and len(places) == len(after):
        for k, axis in zip(places, before, strict=True):
            made[k] = axis


def flatten_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Flatten: two axes, each a product."""
    axes = flow.axes(node, 0)
    cut = integer(node, "axis", 1)
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


def concat_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Concat: all axes but one are as long."""
    if all(name in flow.sizes for name in node.input):
        flow.sizes[node.output[0]] = tuple(size for name in node.input for size in flow.sizes[name])
    operands = [flow.tensors[name] for name in node.input]
    where = integer(node, "axis", 0) % len(operands[0])
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


def slice_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Slice: the axes that are not cut stay."""
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


def split_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Split: the axes that are not split stay."""
    axes = flow.axes(node, 0)
    where = integer(node, "axis", 0) % len(axes)
    for position in range(len(node.output)):
        made: list[Axis | None] = [None if k == where else axis for k, axis in enumerate(axes)]
        size = axes[where].size
        if size is not None and len(node.input) < 2 and ops.attribute(node, "split") is None:
            made[where] = Axis(-(-size // len(node.output)))
        flow.make(node, made, position)


def same_rank_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Pad, Resize and Tile change sizes in a way that is not followed; samples and channels mostly stay."""
    flow.make(node, [None] * len(flow.axes(node, 0)))


def resize_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Resize: samples and channels stay."""
    axes = flow.axes(node, 0)
    flow.make(node, [*axes[:2], *[None] * len(axes[2:])])


def expand_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Expand broadcasts with a shape."""
    target = [
        size if isinstance(size, Axis) else Axis(size if size is None or size > 0 else None)
        for size in flow.sizes[node.input[1]]
    ]
    flow.make(node, broadcast(flow.axes(node, 0), tuple(target)))


def constant_of_shape_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """ConstantOfShape: the axes whose sizes it is given."""
    sizes = flow.sizes[node.input[0]]
    flow.make(node, [size if isinstance(size, Axis) else Axis(size) for size in sizes])


def reduce_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """Reductions drop axes or leave size 1."""
    axes = flow.axes(node, 0)
    where = flow.axes_operand(node)
    if where is None and ops.qualified(node) in ("ArgMax", "ArgMin"):
        where = (integer(node, "axis", 0),)
    chosen = set(range(len(axes))) if where is None else {axis % len(axes) for axis in where}
    if integer(node, "keepdims", 1):
        flow.make(node, [Axis(1) if k in chosen else axis for k, axis in enumerate(axes)])
    else:
        flow.make(node, [axis for k, axis in enumerate(axes) if k not in chosen])


def one_hot_rule(flow: AxisFlow, node: onnx.NodeProto) -> None:
    """OneHot: an axis as long as its depth."""
    axes = list(flow.axes(node, 0))
    where = integer(node, "axis", -1)
    depth = flow.constants(node.input[1])
    axes.insert(where % (len(axes) + 1), Axis(depth[0] if depth else None))
    flow.make(node, axes)

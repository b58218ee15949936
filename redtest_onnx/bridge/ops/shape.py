"""Operators that move, repeat and cut values without changing them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from redtest_onnx.bridge.binding import Fill
from redtest_onnx.bridge.ops.numbers import single
from redtest_onnx.bridge.ops.windows import pad_spatial, place_windows
from redtest_onnx.bridge.registry import ConversionContext, operator


@operator("Reshape", since=5, numbers=(1,))
def reshape(x: Tensor, shape: Sequence[int], *, allowzero: int = 0) -> Tensor:
    """Another shape; 0 keeps the size of that axis unless `allowzero` is set, -1 is what is left."""
    if allowzero:
        return x.reshape(tuple(shape))
    return x.reshape(tuple(x.shape[i] if size == 0 else size for i, size in enumerate(shape)))


@operator("Flatten")
def flatten(x: Tensor, *, axis: int) -> Tensor:
    """A matrix: the axes before `axis`, and the others."""
    axis = axis % x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Transpose")
def transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    """Axes in another order, reversed by default."""
    return x.permute(tuple(perm) if perm is not None else tuple(reversed(range(x.dim()))))


@operator("Squeeze", since=13, numbers=(1,))
def squeeze(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Without the given axes of size 1, or without all of them."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@operator("Squeeze")
def squeeze_1(x: Tensor, *, axes: Sequence[int] | None = None) -> Tensor:
    """Squeeze by attribute."""
    return squeeze(x, axes)


@operator("Unsqueeze", since=13, numbers=(1,))
def unsqueeze(x: Tensor, axes: int | Sequence[int]) -> Tensor:
    """With axes of size 1 at the given places of the result."""
    places = [axes] if isinstance(axes, int) else axes
    rank = x.dim() + len(places)
    for axis in sorted(axis % rank for axis in places):
        x = x.unsqueeze(axis)
    return x


@operator("Unsqueeze")
def unsqueeze_1(x: Tensor, *, axes: Sequence[int]) -> Tensor:
    """Unsqueeze by attribute."""
    return unsqueeze(x, axes)


@operator("Concat", since=4)
def concat(*xs: Tensor, axis: int) -> Tensor:
    """Inputs behind one another along an axis."""
    return torch.cat(xs, axis)


@operator("Split", since=18, numbers=(1,))
def split(
    x: Tensor, sizes: list[int] | None = None, *, axis: int, num_outputs: int = 0, outputs: int
) -> tuple[Tensor, ...]:
    """Pieces of the given sizes along an axis, or equal ones of which the last may be smaller."""
    if sizes is not None:
        return tuple(torch.split(x, sizes, axis))
    return tuple(torch.split(x, -(-x.shape[axis] // (num_outputs or outputs)), axis))


@operator("Split", since=13, numbers=(1,))
def split_13(x: Tensor, sizes: list[int] | None = None, *, axis: int, outputs: int) -> tuple[Tensor, ...]:
    """Pieces of the given sizes along an axis, or equal ones."""
    return split(x, sizes, axis=axis, outputs=outputs)


@operator("Split", since=2)
def split_2(x: Tensor, *, axis: int, split: Sequence[int] | None = None, outputs: int) -> tuple[Tensor, ...]:
    """Split by attribute."""
    return split_13(x, None if split is None else list(split), axis=axis, outputs=outputs)


@operator("Expand", since=8, numbers=(1,))
def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeat axes of size 1 until the tensor broadcasts to `shape`."""
    rank = max(len(shape), x.dim())
    wanted = [1] * (rank - len(shape)) + list(shape)
    own = [1] * (rank - x.dim()) + list(x.shape)
    return x.expand([old if new == 1 else new for old, new in zip(own, wanted, strict=True)])


@operator("Tile", since=6, numbers=(1,))
def tile(x: Tensor, repeats: Sequence[int]) -> Tensor:
    """The tensor repeated along each axis."""
    return x.repeat(tuple(repeats))


@operator("Slice", since=10, numbers=(1, 2, 3, 4))
def slice_(
    x: Tensor,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
) -> Tensor:
    """Elements from `starts` up to but not including `ends`, backwards for negative steps."""
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = _sliced(x, start, end, axis % x.dim(), step)
    return x


@operator("Slice")
def slice_1(
    x: Tensor, *, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None = None
) -> Tensor:
    """Slice by attributes."""
    return slice_(x, starts, ends, axes)


def _sliced(x: Tensor, start: int, end: int, axis: int, step: int) -> Tensor:
    if step > 0:
        return x[(*[slice(None)] * axis, slice(start, end, step))]
    # Counted from the end, what runs backwards runs forwards.
    size = x.shape[axis]
    first, last = (n + size if n < 0 else n for n in (start, end))
    first, last = min(first, size - 1), max(last, -1)
    return x.flip(axis)[(*[slice(None)] * axis, slice(size - 1 - first, size - 1 - last, -step))]


@operator("ConstantOfShape", since=9, numbers=(0,))
def constant_of_shape(
    shape: Sequence[int], *, value: Fill | None = None, context: ConversionContext
) -> Tensor:
    """A tensor of one value."""
    number, dtype = value or (0.0, torch.float32)
    return torch.full(tuple(shape), number, dtype=dtype, device=context.device)


@operator("Range", since=11, differentiable=False)
def range_(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Numbers from start to limit, without it, in steps of delta."""
    first, step = start.item(), delta.item()
    count = max(math.ceil((limit.item() - first) / step), 0)
    return first + torch.arange(count, device=start.device, dtype=start.dtype) * step


@operator("EyeLike", since=9, differentiable=False)
def eye_like(x: Tensor, *, dtype: torch.dtype | None = None, k: int) -> Tensor:
    """Ones on a diagonal, in the shape of x."""
    ones = torch.ones(x.shape, dtype=dtype or x.dtype, device=x.device)
    return ones.triu(k).tril(k)


@operator("Trilu", since=14, numbers=(1,))
def trilu(x: Tensor, k: int | list[int] = 0, *, upper: int) -> Tensor:
    """The part of each matrix above or below a diagonal, zero elsewhere."""
    diagonal = single(k if k is not None else 0)
    return x.triu(diagonal) if upper else x.tril(diagonal)


@operator("DepthToSpace")
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Channels moved into blocks of space."""
    n, c, h, w = x.shape
    b = blocksize
    if mode == "DCR":
        y = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, c // b**2, h * b, w * b)


@operator("SpaceToDepth")
def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Blocks of space moved into channels."""
    n, c, h, w = x.shape
    b = blocksize
    y = x.reshape(n, c, h // b, b, w // b, b)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return y.permute(order).reshape(n, c * b**2, h // b, w // b)


@operator("Col2Im", since=18, numbers=(1, 2))
def column_to_image(
    x: Tensor,
    image_shape: Sequence[int],
    block_shape: Sequence[int],
    *,
    dilations: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    """Sum of overlapping blocks put back into an image: x [N, C prod(block), L] to [N, C, image...]."""
    windows = place_windows(image_shape, block_shape, strides=strides, dilations=dilations, pads=pads)
    padded = [
        size + begin + end for size, begin, end in zip(image_shape, windows.begins, windows.ends, strict=True)
    ]
    taps = math.prod(block_shape)
    columns = x.reshape(x.shape[0], -1, taps, *windows.counts)
    image = x.new_zeros(x.shape[0], columns.shape[1], *padded)
    for tap, position in enumerate(product(*map(range, block_shape))):
        places = [
            slice(at * dilation, at * dilation + (count - 1) * stride + 1, stride)
            for at, dilation, count, stride in zip(
                position, windows.dilations, windows.counts, windows.strides, strict=True
            )
        ]
        image[(slice(None), slice(None), *places)] += columns[:, :, tap]
    return pad_spatial(image, [-n for n in windows.begins], [-n for n in windows.ends])

"""Pooling over windows and over whole spatial axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from redtest_onnx.bridge.ops.windows import Windows, pad_for, place_windows, unfold
from redtest_onnx.bridge.registry import operator

_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


@operator("MaxPool")
def max_pool(
    x: Tensor,
    *,
    auto_pad: str,
    ceil_mode: int = 0,
    dilations: Sequence[int] = (),
    kernel_shape: Sequence[int],
    pads: Sequence[int] = (),
    storage_order: int = 0,
    strides: Sequence[int] = (),
    outputs: int,
) -> Tensor | tuple[Tensor, Tensor]:
    """Maxima of windows and, if asked for, their positions in the flat input."""
    windows = place_windows(
        x.shape[2:],
        kernel_shape,
        strides=strides,
        dilations=dilations,
        pads=pads,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
    )
    if outputs > 1:
        return _max_pool_with_indices(x, windows, storage_order)
    fits = windows.symmetric and all(2 * p <= k for p, k in zip(windows.begins, kernel_shape, strict=True))
    if fits and x.is_floating_point() and len(kernel_shape) in _MAX:
        pool = _MAX[len(kernel_shape)]
        pooled: Tensor = pool(x, windows.sizes, windows.strides, windows.begins, windows.dilations)
        return pooled
    return _max_windows(x, windows).amax(_last(windows))


def _max_windows(x: Tensor, windows: Windows) -> Tensor:
    lowest = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    return unfold(pad_for(x, windows, lowest), windows)


def _max_pool_with_indices(x: Tensor, windows: Windows, storage_order: int) -> tuple[Tensor, Tensor]:
    spatial = x.shape[2:]
    rank = len(spatial)
    values, inside = _max_windows(x, windows).flatten(-rank).max(-1)
    maps = torch.arange(x.shape[0] * x.shape[1], device=x.device) * math.prod(spatial)
    flat = maps.reshape(*x.shape[:2], *[1] * rank)
    for axis in reversed(range(rank)):
        step = math.prod(spatial[:axis] if storage_order else spatial[axis + 1 :])
        starts = torch.arange(windows.counts[axis], device=x.device) * windows.strides[axis]
        position = starts.reshape(-1, *[1] * (rank - axis - 1)) - windows.begins[axis]
        flat = flat + (position + inside % windows.sizes[axis] * windows.dilations[axis]) * step
        inside = inside // windows.sizes[axis]
    return values, flat


@operator("AveragePool")
def average_pool(
    x: Tensor,
    *,
    auto_pad: str,
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] = (),
    kernel_shape: Sequence[int],
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    """Means of windows, over the elements inside the input or, if asked for, over the padding too."""
    windows = place_windows(
        x.shape[2:],
        kernel_shape,
        strides=strides,
        dilations=dilations,
        pads=pads,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
    )
    fits = windows.symmetric and all(2 * p <= k for p, k in zip(windows.begins, kernel_shape, strict=True))
    if fits and set(windows.dilations) == {1} and len(kernel_shape) in _AVERAGE:
        pool = _AVERAGE[len(kernel_shape)]
        return pool(
            x,
            windows.sizes,
            windows.strides,
            windows.begins,
            count_include_pad=bool(count_include_pad),
        )
    total = unfold(pad_for(x, windows), windows).sum(_last(windows))
    inside = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
    if count_include_pad:
        padded = [n + b + e for n, b, e in zip(x.shape[2:], windows.begins, windows.ends, strict=True)]
        inside = torch.ones(1, 1, *padded, dtype=x.dtype, device=x.device)
        windows = _unpadded(windows)
    return total / unfold(pad_for(inside, windows), windows).sum(_last(windows))


def _unpadded(windows: Windows) -> Windows:
    """The same windows over an input that holds its padding already."""
    zero = (0,) * len(windows.sizes)
    return Windows(
        windows.sizes, windows.strides, windows.dilations, zero, zero, windows.counts, windows.overhang
    )


@operator("LpPool", since=2)
def lp_pool(
    x: Tensor,
    *,
    auto_pad: str,
    ceil_mode: int = 0,
    dilations: Sequence[int] = (),
    kernel_shape: Sequence[int],
    p: int,
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    """Lp norms of windows."""
    windows = place_windows(
        x.shape[2:],
        kernel_shape,
        strides=strides,
        dilations=dilations,
        pads=pads,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
    )
    norm: Tensor = torch.linalg.vector_norm(unfold(pad_for(x, windows), windows), p, _last(windows))
    return norm


def _last(windows: Windows) -> tuple[int, ...]:
    """The axes of the elements within each window."""
    return tuple(range(-len(windows.sizes), 0))


@operator("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Tensor:
    """Means over all spatial axes, which stay with size 1."""
    return x.mean(_spatial(x), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(x: Tensor) -> Tensor:
    """Maxima over all spatial axes, which stay with size 1."""
    return x.amax(_spatial(x), keepdim=True)


@operator("GlobalLpPool", since=2)
def global_lp_pool(x: Tensor, *, p: int) -> Tensor:
    """Lp norms over all spatial axes, which stay with size 1."""
    norm: Tensor = torch.linalg.vector_norm(x, p, _spatial(x), keepdim=True)
    return norm


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


@operator("MaxUnpool", since=9, numbers=(2,))
def max_unpool(
    x: Tensor,
    indices: Tensor,
    output_shape: Sequence[int] | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    """Put maxima back to where `MaxPool` found them, zeros elsewhere.

    The positions refer to the smallest input that pools to x; a larger `output_shape` adds zeros behind.
    """
    rank = len(kernel_shape)
    strides = tuple(strides) or (1,) * rank
    pads = tuple(pads) or (0,) * 2 * rank
    spatial = [
        (n - 1) * stride + kernel - begin - end
        for n, stride, kernel, begin, end in zip(
            x.shape[2:], strides, kernel_shape, pads[:rank], pads[rank:], strict=True
        )
    ]
    shape = [*x.shape[:2], *spatial]
    filled = x.new_zeros(math.prod(shape)).index_put((indices.flatten(),), x.flatten()).reshape(shape)
    if output_shape is None:
        return filled
    behind = [wanted - n for wanted, n in zip(output_shape[2:], spatial, strict=True)]
    return functional.pad(filled, [n for size in reversed(behind) for n in (0, size)])

"""Resizing, and sampling at free positions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from redtest_onnx.bridge.ops.interpolation import AxisResize, Filter, resample, source_positions
from redtest_onnx.bridge.registry import operator

_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


@operator("Resize", since=11, numbers=(1, 2, 3))
def resize(
    x: Tensor,
    roi: Sequence[float] | None = None,
    scales: Sequence[float] | None = None,
    sizes: Sequence[int] | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str,
    cubic_coeff_a: float,
    exclude_outside: int,
    extrapolation_value: float,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str,
    nearest_mode: str,
) -> Tensor:
    """Resize axes by `scales`, or to `sizes`, with nearest, linear or cubic interpolation."""
    axes = [axis % x.dim() for axis in (range(x.dim()) if axes is None else axes)]
    plans = _plans(x, axes, scales, sizes, keep_aspect_ratio_policy)
    crop = coordinate_transformation_mode == "tf_crop_and_resize"
    if crop and roi:
        regions = zip(roi, roi[len(axes) :], strict=False)
        plans = [
            AxisResize(p.axis, p.size, p.new_size, p.scale, region)
            for p, region in zip(plans, regions, strict=True)
        ]
    filter_ = Filter(mode, nearest_mode, cubic_coeff_a, bool(exclude_outside), bool(antialias))
    changed = [p for p in plans if crop or p.new_size != p.size or p.scale != 1]
    if (fast := _by_torch(x, changed, filter_, coordinate_transformation_mode)) is not None:
        return fast
    y, outside = x, None
    for plan in changed:
        positions = source_positions(plan, coordinate_transformation_mode, x.device)
        y = resample(y, plan, positions, filter_)
        if crop:
            beyond = (positions < 0) | (positions > plan.size - 1)
            beyond = beyond.reshape([-1 if axis == plan.axis else 1 for axis in range(x.dim())])
            outside = beyond if outside is None else outside | beyond
    return y if outside is None else y.masked_fill(outside, extrapolation_value)


@operator("Resize", since=10, numbers=(1,))
def resize_10(x: Tensor, scales: Sequence[float], *, mode: str) -> Tensor:
    """Resize as in operator set 10: from the upper left corner, rounding down."""
    return resize(
        x,
        scales=scales,
        coordinate_transformation_mode="asymmetric",
        cubic_coeff_a=-0.75,
        exclude_outside=0,
        extrapolation_value=0.0,
        mode=mode,
        nearest_mode="floor",
    )


@operator("Upsample", since=9, numbers=(1,))
def upsample(x: Tensor, scales: Sequence[float], *, mode: str) -> Tensor:
    """The former name of Resize."""
    return resize_10(x, scales, mode=mode)


@operator("Upsample", since=7)
def upsample_7(x: Tensor, *, scales: Sequence[float], mode: str) -> Tensor:
    """Upsample by attribute."""
    return resize_10(x, scales, mode=mode)


def _plans(
    x: Tensor,
    axes: Sequence[int],
    scales: Sequence[float] | None,
    sizes: Sequence[int] | None,
    policy: str,
) -> list[AxisResize]:
    old = [x.shape[axis] for axis in axes]
    if sizes:
        factors = [new / n for new, n in zip(sizes, old, strict=True)]
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            factors = [factor] * len(axes)
            sizes = [math.floor(factor * n + 0.5) for n in old]
    else:
        factors = list(scales or ())
        sizes = [math.floor(n * factor) for n, factor in zip(old, factors, strict=True)]
    return [AxisResize(*plan) for plan in zip(axes, old, sizes, factors, strict=True)]


def _by_torch(x: Tensor, plans: Sequence[AxisResize], filter_: Filter, transformation: str) -> Tensor | None:
    """The result of `interpolate` where it computes the same, which is faster."""
    spatial = tuple(range(2, x.dim()))
    exact = all(plan.new_size == plan.size * plan.scale for plan in plans)
    if x.dim() not in _LINEAR or not {plan.axis for plan in plans} <= set(spatial) or not exact:
        return None
    size = list(x.shape[2:])
    for plan in plans:
        size[plan.axis - 2] = plan.new_size
    if filter_.mode == "nearest" and transformation == "asymmetric" and filter_.nearest_mode == "floor":
        return functional.interpolate(x, size, mode="nearest")
    if filter_.mode != "linear" or filter_.antialias or filter_.exclude_outside:
        return None
    if transformation == "align_corners":
        return functional.interpolate(x, size, mode=_LINEAR[x.dim()], align_corners=True)
    if transformation == "half_pixel":
        return functional.interpolate(x, size, mode=_LINEAR[x.dim()], align_corners=False)
    return None


_GRID_MODES = {"bilinear": "bilinear", "linear": "bilinear", "cubic": "bicubic", "bicubic": "bicubic"}


@operator("GridSample", since=16)
def grid_sample(x: Tensor, grid: Tensor, *, align_corners: int, mode: str, padding_mode: str) -> Tensor:
    """Values of [N, C, spatial...] at positions in [-1, 1], given as [N, spatial..., axes]."""
    return functional.grid_sample(x, grid, _GRID_MODES.get(mode, mode), padding_mode, bool(align_corners))


@operator("AffineGrid", since=20, numbers=(1,))
def affine_grid(theta: Tensor, size: Sequence[int], *, align_corners: int) -> Tensor:
    """Positions for `grid_sample` under an affine map [N, axes, axes + 1]."""
    return functional.affine_grid(theta, list(size), bool(align_corners))

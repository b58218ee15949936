"""Resampling along one axis: where each output element looks, and how much of what it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AxisResize:
    """How one axis is resized.

    Attributes:
        axis: the axis.
        size: its size before.
        new_size: its size after.
        scale: the factor, of which `new_size` may be a rounding.
        region: start and end of the cropped region as shares of the axis.
    """

    axis: int
    size: int
    new_size: int
    scale: float
    region: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Filter:
    """How values between elements are computed; names are those of the ONNX attributes."""

    mode: str
    nearest_mode: str = "round_prefer_floor"
    cubic_coeff_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False


def source_positions(plan: AxisResize, transformation: str, device: torch.device) -> Tensor:
    """Position in the input, as a float64 coordinate, of each element of the output."""
    i = torch.arange(plan.new_size, dtype=torch.float64, device=device)
    last, new_last = plan.size - 1, plan.new_size - 1
    match transformation:
        case "asymmetric":
            return i / plan.scale
        case "align_corners":
            return i * (last / new_last) if new_last > 0 else i
        case "pytorch_half_pixel" if plan.new_size == 1:
            return i
        case "tf_half_pixel_for_nn":
            return (i + 0.5) / plan.scale
        case "half_pixel_symmetric":
            shift = plan.size / 2 * (1 - plan.new_size / (plan.scale * plan.size))
            return shift + (i + 0.5) / plan.scale - 0.5
        case "tf_crop_and_resize":
            start, end = plan.region
            step = (end - start) * last / new_last if new_last > 0 else 0.0
            return (start * last if new_last > 0 else 0.5 * (start + end) * last) + i * step
    return (i + 0.5) / plan.scale - 0.5


def resample(x: Tensor, plan: AxisResize, positions: Tensor, filter_: Filter) -> Tensor:
    """The values of x at the given positions of an axis; beyond the ends the last element counts."""
    if filter_.mode == "nearest":
        return x.index_select(plan.axis, _nearest(positions, filter_.nearest_mode).clamp(0, plan.size - 1))
    places, weights = _taps(plan, positions, filter_)
    weights = weights.to(x.dtype)
    shape = [1] * x.dim()
    shape[plan.axis] = -1
    total: Tensor | None = None
    for place, weight in zip(places, weights, strict=True):
        part = x.index_select(plan.axis, place) * weight.reshape(shape)
        total = part if total is None else total + part
    assert total is not None
    return total


def _nearest(positions: Tensor, mode: str) -> Tensor:
    match mode:
        case "floor":
            return positions.floor().long()
        case "ceil":
            return positions.ceil().long()
        case "round_prefer_ceil":
            return (positions + 0.5).floor().long()
    return (positions - 0.5).ceil().long()


def _taps(plan: AxisResize, positions: Tensor, filter_: Filter) -> tuple[Tensor, Tensor]:
    """Elements each output takes part of and their weights, both [taps, outputs]."""
    reach = 1 if filter_.mode == "linear" else 2
    shrink = min(plan.scale, 1.0) if filter_.antialias else 1.0
    first = math.floor(-reach / shrink) + 1
    offsets = torch.arange(first, 2 - first if shrink < 1 else reach + 1, device=positions.device)
    places = positions.floor().long() + offsets[:, None]
    distance = ((places - positions) * shrink).abs()
    weights = (1 - distance).clamp(min=0) if reach == 1 else _cubic(distance, filter_.cubic_coeff_a)
    if filter_.exclude_outside:
        weights = weights * ((places >= 0) & (places < plan.size))
    if filter_.exclude_outside or filter_.antialias:
        weights = weights / weights.sum(0)
    return places.clamp(0, plan.size - 1), weights


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Cubic convolution (Keys 1981)."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))

"""Padding in all modes, and cropping to a centre."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from redtest_onnx.bridge.ops.numbers import single
from redtest_onnx.bridge.registry import operator


@operator("Pad", since=11, numbers=(1, 2, 3))
def pad(
    x: Tensor,
    pads: Sequence[int],
    value: float | list[float] | None = None,
    axes: Sequence[int] | None = None,
    *,
    mode: str,
) -> Tensor:
    """Add elements in front of and behind the given axes; negative numbers cut elements off.

    The new elements are a constant, the edge, or the tensor itself mirrored or wrapped around.
    """
    axes = range(x.dim()) if axes is None else axes
    begins, ends = pads[: len(pads) // 2], pads[len(pads) // 2 :]
    amounts = {axis % x.dim(): pair for axis, *pair in zip(axes, begins, ends, strict=True)}
    if mode == "constant":
        flat = [n for axis in reversed(range(x.dim())) for n in amounts.get(axis, (0, 0))]
        return functional.pad(x, flat, value=0 if value is None else single(value))
    for axis, (begin, end) in amounts.items():
        if begin or end:
            x = x.index_select(axis, _sources(x.shape[axis], begin, end, mode, x.device))
    return x


@operator("Pad", since=2)
def pad_2(x: Tensor, *, mode: str, pads: Sequence[int], value: float) -> Tensor:
    """Pad by attributes."""
    return pad(x, pads, value, mode=mode)


def _sources(size: int, begin: int, end: int, mode: str, device: torch.device) -> Tensor:
    """Where along an axis each element of the result comes from."""
    places = torch.arange(-begin, size + end, device=device)
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places % size
    period = max(2 * (size - 1), 1)
    places = places % period
    return torch.minimum(places, period - places)


@operator("CenterCropPad", since=18, numbers=(1,))
def center_crop_pad(x: Tensor, shape: Sequence[int], *, axes: Sequence[int] | None = None) -> Tensor:
    """Cut off or pad with zeros on both sides until the axes have the given sizes."""
    pads: list[tuple[int, int]] = [(0, 0)] * x.dim()
    for axis, size in zip(range(x.dim()) if axes is None else axes, shape, strict=True):
        missing = size - x.shape[axis]
        # The odd element is taken from and added to the end.
        begin = missing // 2 if missing >= 0 else -(-missing // 2)
        pads[axis] = (begin, missing - begin)
    return functional.pad(x, [n for pair in reversed(pads) for n in pair])

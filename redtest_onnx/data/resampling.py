"""Antialiased resizing of bytes as torch does it: torchvision on tensors, Transformers' tensor processors.

The filters are Pillow's, stretched over as many pixels as one pixel of the result covers; rows come first,
then columns, with bytes in between. What differs from Pillow is the precision of the weights (torch keeps 16
bits, as large as the largest weight of an axis allows) and, for some sizes, which axis comes first: with
filters that overshoot, bicubic and Lanczos, that makes up to some steps of 255.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Float64s

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Bytes = npt.NDArray[np.uint8]

_BITS = 22
_LARGEST = 1 << 15  # what a weight must stay below


def _triangle(x: Float64s) -> Float64s:
    return np.maximum(1.0 - np.abs(x), 0.0, dtype=np.float64)


def _cubic(x: Float64s) -> Float64s:
    """Keys' cubic with a = -1/2 (1981, equation 15)."""
    x = np.abs(x)
    inner, outer = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


def _lanczos(x: Float64s) -> Float64s:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


_FILTERS = {"bilinear": (1.0, _triangle), "bicubic": (2.0, _cubic), "lanczos": (3.0, _lanczos)}
RESAMPLED = frozenset(_FILTERS)
"""The interpolations that are told apart from Pillow's."""


def resize_bytes(pixels: Bytes, size: tuple[int, int], interpolation: str) -> Bytes:
    """An image of another size.

    Args:
        pixels: [H, W] or [H, W, C].
        size: height and width of the result.
        interpolation: one of `RESAMPLED`.

    Returns:
        The image, [*size] or [*size, C].
    """
    found = pixels
    for axis in (1, 0):
        if found.shape[axis] != size[axis]:
            found = _along(found, axis, size[axis], interpolation)
    return found


def _along(pixels: Bytes, axis: int, length: int, interpolation: str) -> Bytes:
    weights, bits = fixed_weights(pixels.shape[axis], length, interpolation)
    lines = np.moveaxis(pixels, axis, 0)
    sums: Any = weights @ lines.reshape(len(lines), -1).astype(np.int32)
    rounded = (sums + (1 << (bits - 1))) >> bits
    values = np.clip(rounded, 0, 255).astype(np.uint8).reshape(length, *lines.shape[1:])
    return np.ascontiguousarray(np.moveaxis(values, 0, axis))


@lru_cache(maxsize=64)
def fixed_weights(before: int, after: int, interpolation: str) -> tuple[csr_array, int]:
    """The filter of one axis, [after, before], in whole parts of 2 ** bits.

    Args:
        before: number of pixels.
        after: number of pixels of the result.
        interpolation: one of `RESAMPLED`.

    Returns:
        int32 weights, each below 2 ** 15 in size, and the number of bits.
    """
    from scipy.sparse import csr_array

    reach, curve = _FILTERS[interpolation]
    ratio = before / after
    stretch = max(ratio, 1.0)
    centres = ratio * (np.arange(after) + 0.5)
    first = np.maximum((centres - reach * stretch + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + reach * stretch + 0.5).astype(np.int64), before)
    places = first[:, None] + np.arange((last - first).max())
    within = places < last[:, None]
    values = np.where(within, curve((places - centres[:, None] + 0.5) / stretch), 0.0)
    values /= values.sum(axis=1, keepdims=True)
    largest = values.max()
    bits = next((k for k in range(_BITS) if int(0.5 + largest * (1 << (k + 1))) >= _LARGEST), _BITS)
    scaled = np.trunc(values * (1 << bits) + np.copysign(0.5, values)).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(within.sum(axis=1))])
    return csr_array((scaled[within], places[within], starts), shape=(after, before)), bits

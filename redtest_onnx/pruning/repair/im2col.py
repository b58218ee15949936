"""Rows of the linear problem that a convolution solves: its patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Window:
    """How a 2-D convolution looks at its input: kernel, strides, dilations, and padding before each axis."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]


def patches(
    images: npt.NDArray[Any],
    window: Window,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
) -> npt.NDArray[Any]:
    """Patches that a convolution sees at chosen output positions.

    Images are turned to channels last once, so that a patch is gathered in runs of C values.

    Args:
        images: [n, C, H, W].
        window: the convolution's geometry.
        rows: [m] row of each output position, the same for all images.
        columns: [m] its column.

    Returns:
        [n * m, kh * kw, C]; zero outside the image.
    """
    n, channels, height, width = images.shape
    (kh, kw), m = window.kernel, len(rows)
    y = _coordinates(rows, 0, window)
    x = _coordinates(columns, 1, window)
    low_y, low_x = (int(min(v.min(initial=0), 0)) for v in (y, x))
    high_y = int(max(y.max(initial=0) + 1, height))
    high_x = int(max(x.max(initial=0) + 1, width))
    shape = (n, high_y - low_y, high_x - low_x, channels)
    padded = np.empty(shape, images.dtype) if shape[1:3] == (height, width) else np.zeros(shape, images.dtype)
    padded[:, -low_y : height - low_y, -low_x : width - low_x] = images.transpose(0, 2, 3, 1)
    places = (y - low_y)[:, :, None] * shape[2] + (x - low_x)[:, None, :]  # [m, kh, kw]
    offsets = np.arange(n)[:, None] * (shape[1] * shape[2])
    found = padded.reshape(-1, channels).take((offsets + places.reshape(1, -1)).reshape(-1), axis=0)
    return found.reshape(n * m, kh * kw, channels)


def _coordinates(positions: npt.NDArray[np.int64], axis: int, window: Window) -> npt.NDArray[np.int64]:
    """[m, k] coordinates in the input of each kernel element along one axis."""
    taps = np.arange(window.kernel[axis]) * window.dilations[axis]
    return positions[:, None] * window.strides[axis] - window.before[axis] + taps[None, :]


def values_at(
    images: npt.NDArray[Any], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> npt.NDArray[Any]:
    """Values [n * m, C] of images [n, C, H, W] at chosen positions, in the order of `patches`."""
    n, channels, height, width = images.shape
    flat = images.reshape(n, channels, height * width)
    places = rows * width + columns
    if len(places) < height * width or not np.array_equal(places, np.arange(len(places))):
        flat = flat.take(places, axis=2)
    return flat.transpose(0, 2, 1).reshape(-1, channels)

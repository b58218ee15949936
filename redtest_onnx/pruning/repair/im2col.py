"""Rows of the linear problem that a convolution solves: its patches."""

from __future__ import annotations

from dataclasses import dataclass

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
    images: npt.NDArray[np.generic],
    window: Window,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
) -> npt.NDArray[np.generic]:
    """Patches that a convolution sees at chosen output positions.

    Args:
        images: [n, C, H, W].
        window: the convolution's geometry.
        rows: [m] row of each output position, the same for all images.
        columns: [m] its column.

    Returns:
        [n * m, C * kh * kw], in the order of a convolution's weights [M, C, kh, kw]; zero outside the image.
    """
    n, channels, height, width = images.shape
    (kh, kw), m = window.kernel, len(rows)
    y = _coordinates(rows, 0, window)
    x = _coordinates(columns, 1, window)
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    y, x = y.clip(0, height - 1), x.clip(0, width - 1)
    found = images[:, :, y[:, :, None], x[:, None, :]]  # [n, C, m, kh, kw]
    if not inside.all():
        found = np.where(inside, found, 0)
    return found.transpose(0, 2, 1, 3, 4).reshape(n * m, channels * kh * kw)


def _coordinates(positions: npt.NDArray[np.int64], axis: int, window: Window) -> npt.NDArray[np.int64]:
    """[m, k] coordinates in the input of each kernel element along one axis."""
    taps = np.arange(window.kernel[axis]) * window.dilations[axis]
    return positions[:, None] * window.strides[axis] - window.before[axis] + taps[None, :]


def values_at(
    images: npt.NDArray[np.generic], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> npt.NDArray[np.generic]:
    """Values [n * m, C] of images [n, C, H, W] at chosen positions, in the order of `patches`."""
    return images[:, :, rows, columns].transpose(0, 2, 1).reshape(-1, images.shape[1])

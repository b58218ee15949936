"""Matrices as text that is small enough for a page of many layers."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redtest_onnx.arrays import Float64s
from redtest_onnx.report.page.model import Matrix
from redtest_onnx.report.page.palette import png

_FINE = 150_000  # values up to which two bytes each are spent
_BUDGET = 800_000  # bytes that all matrices of a page may take before base64 makes them a third larger
_LEAST = 75_000  # of the budget kept for each matrix behind the first
_PICTURE = 320  # pixels of the picture that stands in where there is no JavaScript


@dataclass(frozen=True)
class EncodedArray:
    """A matrix as text.

    Attributes:
        data: base64 of the values by rows, the upper triangle with its diagonal if symmetric: little-endian
            numbers from 0 for 0 to `levels` for 1; `levels` + 1 where undefined.
        bytes: 1 or 2 for each value.
        levels: the number that stands for 1.
        step: side of the squares that were averaged into one value; 1 for none.
        shape: rows and columns after averaging.
    """

    data: str
    bytes: int
    levels: int
    step: int
    shape: tuple[int, int]


def encode(matrices: Sequence[Matrix]) -> list[EncodedArray]:
    """All matrices of a page within a budget: one byte a value if two are too many, then means of squares.

    What one matrix does not need is left to those that follow.
    """
    left, found = _BUDGET, []
    for k, matrix in enumerate(matrices):
        share = left if k else max(left - _LEAST * (len(matrices) - 1), left // len(matrices))
        encoded = _encode(matrix, share)
        found.append(encoded)
        left -= len(encoded.data) * 3 // 4
    return found


def _encode(matrix: Matrix, budget: int) -> EncodedArray:
    step, values = 1, matrix.values
    while _entries(values, matrix.symmetric) > budget:
        step += 1
        values = block_means(matrix.values, step)
    flat = values[np.triu_indices(len(values))] if matrix.symmetric else values.ravel()
    fine = len(flat) <= _FINE
    levels = 65_534 if fine else 254
    numbers = np.full(flat.shape, levels + 1, np.uint32)
    defined = np.isfinite(flat)
    numbers[defined] = np.rint(np.clip(flat[defined], 0, 1) * levels).astype(np.uint32)
    data = numbers.astype("<u2" if fine else "u1").tobytes()
    shape = (values.shape[0], values.shape[1])
    return EncodedArray(base64.b64encode(data).decode("ascii"), 2 if fine else 1, levels, step, shape)


def _entries(values: Float64s, symmetric: bool) -> int:
    rows, columns = (int(size) for size in values.shape)
    return rows * (rows + 1) // 2 if symmetric else rows * columns


def block_means(values: Float64s, step: int) -> Float64s:
    """Means over squares of `step` x `step` values, of the defined ones; NaN where none is.

    Args:
        values: [L, M] float64.
        step: side of the squares.

    Returns:
        [ceil(L / step), ceil(M / step)] float64.
    """
    rows, columns = (-(-size // step) * step for size in values.shape)
    padded = np.full((rows, columns), np.nan)
    padded[: values.shape[0], : values.shape[1]] = values
    blocks = padded.reshape(rows // step, step, columns // step, step)
    defined = np.isfinite(blocks)
    counts = defined.sum(axis=(1, 3))
    sums = np.where(defined, blocks, 0.0).sum(axis=(1, 3))
    means: Float64s = np.divide(sums, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    return means


def picture(matrix: Matrix) -> str:
    """The matrix as a PNG in a data URI, a pixel a value, for browsers without JavaScript."""
    step = max(1, -(-max(matrix.values.shape) // _PICTURE))
    values = block_means(matrix.values, step) if step > 1 else matrix.values
    return "data:image/png;base64," + base64.b64encode(png(values)).decode("ascii")

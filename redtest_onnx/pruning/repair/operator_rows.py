"""Which rows of least-squares equations a linear operator sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Counted, Float64s, Values
from redtest_onnx.graph.linear_operators import Geometry, LinearOperator
from redtest_onnx.pruning.repair.im2col import Window, patches, values_at
from redtest_onnx.pruning.repair.positions import counted_rows

Gathered = tuple[Values, Values]
Number = TypeVar("Number", bound=np.generic)

BLOCK = 2048
"""Rows that are gathered and multiplied at a time, by one thread."""


@dataclass(frozen=True)
class OperatorRows:
    """The rows of one run of the model.

    Attributes:
        gather: gives rows x [n, groups, p] and errors [n, groups, q] of a block.
        blocks: parts of the samples or rows, small enough for one product.
        per_sample: rows that one sample gives.
    """

    gather: Callable[[slice], Gathered]
    blocks: list[slice]
    per_sample: int


def in_channel_order(weight: Float64s, geometry: Geometry | None) -> Float64s:
    """[M, p] rows of weights, from [groups, p, q] columns whose kernel elements come before the channels."""
    groups, p, q = weight.shape
    taps = geometry.kernel[0] * geometry.kernel[1] if geometry else 1
    ordered = weight.reshape(groups, taps, p // taps, q).transpose(0, 3, 2, 1)
    return ordered.reshape(groups * q, p)


def operator_rows(
    operator: LinearOperator,
    x: Values,
    error: Values,
    wanted: int,
    rng: np.random.Generator,
    counted: Counted = None,
) -> OperatorRows | None:
    """The rows that an operator sees in one run; None if the shapes don't fit.

    Args:
        operator: the operator.
        x: what it reads, samples first.
        error: at its target; any multiple of its channels.
        wanted: rows per sample, taken at random where there are more.
        rng: chooses them.
        counted: [n, positions] which positions of sequences are taken; all if None.
    """
    if operator.geometry:
        return image_rows(operator, x, error, wanted, rng)
    x, error = np.atleast_2d(x), np.atleast_2d(error)  # one vector is one row
    return token_rows(x, error, counted_rows(x, counted), wanted, rng)


def spatial(images: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """[n, C, H, W] of images, or of lines [n, C, L] as images of height 1."""
    return images[:, :, None] if images.ndim == 3 else images


def token_rows(
    x: Values,
    error: Values,
    counted: npt.NDArray[np.bool_] | None,
    wanted: int,
    rng: np.random.Generator,
) -> OperatorRows | None:
    """The rows of a product: one per position of a sequence; arguments as those of `operator_rows`."""
    if x.shape[:-1] != error.shape[:-1]:
        return None
    a, b = x.reshape(-1, 1, x.shape[-1]), error.reshape(-1, 1, error.shape[-1])
    if counted is not None and not counted.all():
        a, b = a[counted.reshape(-1)], b[counted.reshape(-1)]
    count, per_sample = len(a), min(len(a) // max(len(x), 1), wanted)
    if count > wanted * len(x):
        chosen = np.sort(rng.choice(count, wanted * len(x), replace=False))
        count = len(chosen)
        return OperatorRows(lambda block: (a[chosen[block]], b[chosen[block]]), _blocks(count, 1), per_sample)
    return OperatorRows(lambda block: (a[block], b[block]), _blocks(count, 1), per_sample)


def image_rows(
    operator: LinearOperator, x: Values, error: Values, wanted: int, rng: np.random.Generator
) -> OperatorRows | None:
    """The rows of a convolution: one per place of an image; arguments as those of `operator_rows`."""
    x, error = spatial(x), spatial(error)
    if x.ndim != 4 or error.ndim != 4 or operator.geometry is None:
        return None
    geometry, groups = operator.geometry, operator.groups
    height, width = error.shape[2:]
    before = geometry.padding((x.shape[2], x.shape[3]), (height, width))
    window = Window(geometry.kernel, geometry.strides, geometry.dilations, before)
    places = np.arange(height * width)
    if len(places) > wanted:
        places = np.sort(rng.choice(places, wanted, replace=False))
    rows, columns = np.divmod(places, width)

    def gather(block: slice) -> Gathered:
        found = patches(x[block], window, rows, columns)  # [n, taps, C]
        grouped = found.reshape(*found.shape[:2], groups, -1).transpose(0, 2, 1, 3)
        errors = values_at(error[block], rows, columns)
        return grouped.reshape(len(found), groups, -1), errors.reshape(len(errors), groups, -1)

    return OperatorRows(gather, _blocks(len(x), len(places)), len(places))


def _blocks(count: int, rows: int) -> list[slice]:
    """Consecutive parts of `count` items that give so many rows each."""
    size = max(1, BLOCK // max(rows, 1))
    return [slice(start, start + size) for start in range(0, max(count, 1), size)]

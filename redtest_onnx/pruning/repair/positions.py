"""Positions of sequences that a mask leaves out: nothing is fitted to them, and their errors don't count."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Counted

Number = TypeVar("Number", bound=np.generic)


def counted_rows(values: npt.NDArray[np.generic], counted: Counted) -> npt.NDArray[np.bool_] | None:
    """Which rows of values [n, positions, channels] or [n * positions, channels] count, in their sizes.

    None where all do, and where the values are no sequences that the mask speaks of.
    """
    if counted is None:
        return None
    if values.ndim == 2 and len(values) == counted.size:
        return counted.reshape(-1)
    if values.ndim != 3 or len(values) != len(counted) or values.shape[1] > counted.shape[1]:
        return None
    return counted[:, counted.shape[1] - values.shape[1] :]


def silenced(error: npt.NDArray[Number], counted: Counted) -> npt.NDArray[Number]:
    """Errors with 0 where positions don't count; what is computed there may be NaN."""
    rows = counted_rows(error, counted)
    if rows is None or rows.all():
        return error
    zero = np.zeros((), error.dtype)
    found: npt.NDArray[Number] = np.where(rows[..., None], error, zero)
    return found

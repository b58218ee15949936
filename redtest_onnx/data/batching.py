"""Samples in runs of the size a model takes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def leading_indices(count: int, available: int) -> Indices:
    """The first `count` samples, again from the start where there are fewer."""
    return np.arange(count, dtype=np.int64) % max(available, 1)


def batches(indices: Indices, size: int, *, fixed: bool) -> Iterator[tuple[Indices, int]]:
    """Cut samples into runs.

    Args:
        indices: the samples.
        size: samples per run.
        fixed: whether every run must have that size; the last one then repeats its first sample.

    Yields:
        The samples of a run, and how many of them count.
    """
    for start in range(0, len(indices), size):
        chosen = indices[start : start + size]
        missing = size - len(chosen) if fixed else 0
        yield np.concatenate([chosen, np.full(missing, chosen[0])]), len(chosen)

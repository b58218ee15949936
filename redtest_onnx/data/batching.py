"""Samples in runs of the size a model takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from redtest_onnx.arrays import Indices

Item = TypeVar("Item")
Array = TypeVar("Array", bound=Any)


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


def counting(values: Array, count: int, size: int) -> Array:
    """The rows of a run's values that count: all, where no sample fills the run up.

    Where a run is one sample, its first axis may hold anything, such as the nodes of a graph.

    Args:
        values: [size, ...] of the run.
        count: how many of its samples count.
        size: how many it has.
    """
    found: Array = values if count == size else values[:count]
    return found


def portions(items: Iterable[Item], size_of: Callable[[Item], int], limit: int) -> Iterator[list[Item]]:
    """Cut a sequence into portions that can be held at once, in order.

    Args:
        items: what is cut.
        size_of: the bytes that an item takes.
        limit: bytes of a portion; an item that is larger alone makes a portion of its own.
    """
    portion: list[Item] = []
    held = 0
    for item in items:
        size = size_of(item)
        if portion and held + size > limit:
            yield portion
            portion, held = [], 0
        portion.append(item)
        held += size
    if portion:
        yield portion

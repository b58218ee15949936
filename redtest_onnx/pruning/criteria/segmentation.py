"""Cut an ordered sequence into segments of similar values: Fisher's optimal segmentation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def fisher_segments(values: npt.ArrayLike, count: int) -> list[range]:
    """Segments with the least sum of squared distances from their means (Fisher, 1958), exactly.

    Args:
        values: [n] in order.
        count: number of segments, 1 to n.

    Returns:
        The positions of each segment, in order.

    Raises:
        ValueError: `count` is out of range.
    """
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    if not 1 <= count <= n:
        raise ValueError(f"{count} segments of {n} values")
    cost = _within(x)
    best = cost[0].copy()  # best[j]: values 0..j in the segments so far
    starts = np.zeros((count, n), dtype=np.int64)
    for k in range(1, count):
        # options[i, j]: the last segment is i..j, and everything before it is cut best
        options = np.full((n, n), np.inf)
        options[1:] = best[:-1, None] + cost[1:]
        options[np.tril_indices(n, -1)] = np.inf
        starts[k] = options.argmin(axis=0)
        best = options.min(axis=0)
    segments: list[range] = []
    end = n
    for k in reversed(range(count)):
        start = int(starts[k, end - 1])
        segments.append(range(start, end))
        end = start
    return segments[::-1]


def _within(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[n, n] squared distances from the mean of each segment i..j, j >= i."""
    first = np.concatenate([[0.0], np.cumsum(x)])
    second = np.concatenate([[0.0], np.cumsum(x * x)])
    i, j = np.arange(len(x))[:, None], np.arange(len(x))[None, :] + 1
    length = np.maximum(j - i, 1)
    total = first[j] - first[i]
    cost: npt.NDArray[np.float64] = np.maximum(second[j] - second[i] - total * total / length, 0)
    return cost

"""Large products in tiles that threads can work on.

Tiles are of one size, and each is computed by one call, whatever the number of threads: so is every bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Float64s

Item = TypeVar("Item")
Result = TypeVar("Result")

_TILE = 512  # rows and columns: smaller ones multiply slower
_DEPTH = 4096  # columns whose products are summed in the precision of the rows


class Each(Protocol):
    """Applies a function to items, on one thread or on several; gives the results in order."""

    def __call__(self, function: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
        """Results of the function."""


def in_turn(function: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
    """On the calling thread, one after another."""
    return map(function, items)


def gram(rows: npt.NDArray[Any], each: Each = in_turn) -> Float64s:
    """[n, n] inner products of rows [n, p], in their precision; those of long ones are sums of parts."""
    found = np.empty((len(rows), len(rows)))
    first, *others = _cuts(rows.shape[1], _DEPTH) or [slice(0, 0)]

    def fill(place: tuple[slice, slice]) -> None:
        a, b = (rows[part] for part in place)
        block = found[place]
        block[...] = a[:, first] @ b[:, first].T
        for part in others:
            block += a[:, part] @ b[:, part].T
        found[place[1], place[0]] = block.T

    cuts = _cuts(len(rows), _TILE)
    _apply(fill, [(one, other) for k, one in enumerate(cuts) for other in cuts[: k + 1]], each)
    return found


def transposed_product(left: npt.NDArray[Any], right: Float64s, each: Each = in_turn) -> Float64s:
    """[p, q] left' right of [n, p] in any precision and [n, q], in float64."""
    found = np.empty((left.shape[1], right.shape[1]))

    def fill(columns: slice) -> None:
        found[columns] = left[:, columns].astype(np.float64, copy=False).T @ right

    in_tiles(fill, left.shape[1], each)
    return found


def in_tiles(
    function: Callable[[slice], object], size: int, each: Each = in_turn, length: int | None = None
) -> None:
    """Apply a function to each tile, of the usual length or of another one, of an axis of some size."""
    _apply(function, _cuts(size, length or _TILE), each)


def _cuts(size: int, length: int) -> list[slice]:
    """Consecutive parts of so many."""
    return [slice(start, min(start + length, size)) for start in range(0, size, length)]


def _apply(function: Callable[[Item], object], items: list[Item], each: Each) -> None:
    """Call a function on all items; a single one isn't worth a thread."""
    deque((each if len(items) > 1 else in_turn)(function, items), maxlen=0)

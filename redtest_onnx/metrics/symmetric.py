"""Symmetric matrices that sums are taken in, of which one half is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Numbers

_BLOCK = 1024
"""Rows and columns of a block; what is no larger than that is one, kept whole."""


class SymmetricSums:
    """Symmetric matrices [groups, p, p], cut into blocks: those on the diagonal and above it are kept.

    Args:
        size: p.
        block: makes the block [groups, rows, columns] of some rows and columns.
    """

    def __init__(self, size: int, block: Callable[[slice, slice], Numbers]) -> None:
        self.size = size
        cuts = [slice(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK)]
        cuts = cuts or [slice(0, 0)]
        self._blocks = {
            (k, m): block(rows, columns)
            for k, rows in enumerate(cuts)
            for m, columns in enumerate(cuts[k:], k)
        }
        self._cuts = cuts

    @classmethod
    def zeros(cls, groups: int, size: int) -> SymmetricSums:
        """Zeros in float64."""
        return cls(size, lambda rows, columns: np.zeros((groups, _length(rows), _length(columns))))

    @classmethod
    def of_rows(cls, rows: Numbers) -> SymmetricSums:
        """x' x of rows x [groups, n, p], in their precision."""
        if len(rows) == 1:  # the product of a matrix with its own transpose takes half the work
            x = rows[0]
            return cls(x.shape[1], lambda a, b: (x[:, a].T @ x[:, b])[None])
        across = rows.transpose(0, 2, 1)
        return cls(rows.shape[2], lambda a, b: across[:, a] @ rows[:, :, b])

    @classmethod
    def of_pairs(cls, left: Numbers, right: Numbers) -> SymmetricSums:
        """a b' + b a' of vectors a and b, [groups, p] each."""

        def block(rows: slice, columns: slice) -> Numbers:
            one = left[:, rows, None] * right[:, None, columns]
            one += right[:, rows, None] * left[:, None, columns]
            return one

        return cls(left.shape[1], block)

    @property
    def finite(self) -> bool:
        """Whether all entries of x' x are: none exceeds the largest one of the diagonal."""
        return bool(np.isfinite(self.diagonal).all())

    @property
    def diagonal(self) -> Numbers:
        """[groups, p]."""
        on = (self._blocks[k, k] for k in range(len(self._cuts)))
        return np.concatenate([np.diagonal(block, axis1=1, axis2=2) for block in on], axis=1)

    def add(self, other: SymmetricSums) -> None:
        """Add another one of the same size, in place."""
        for place, block in self._blocks.items():
            block += other._blocks[place]

    def negative(self) -> SymmetricSums:
        """The same with the other sign."""
        found = copy(self)
        found._blocks = {place: -block for place, block in self._blocks.items()}
        return found

    def times(self, right: Numbers) -> Numbers:
        """[groups, p, q] the product with a matrix [groups, p, q]."""
        if len(self._cuts) == 1:
            whole: Numbers = self._blocks[0, 0] @ right
            return whole
        found = np.zeros_like(right)
        for (k, m), block in self._blocks.items():
            rows, columns = self._cuts[k], self._cuts[m]
            found[:, rows] += block @ right[:, columns]
            if k != m:
                found[:, columns] += block.transpose(0, 2, 1) @ right[:, rows]
        return found


def dense_total(terms: Sequence[SymmetricSums], group: int) -> npt.NDArray[np.float64]:
    """[p, p] the sum of some matrices of one group, whole, C-contiguous and in new memory."""
    first = terms[0]
    found = np.empty((first.size, first.size))
    for (k, m), block in first._blocks.items():
        rows, columns = first._cuts[k], first._cuts[m]
        part = found[rows, columns]
        part[...] = block[group]
        for other in terms[1:]:
            part += other._blocks[k, m][group]
        if k != m:
            found[columns, rows] = part.T
    return found


def _length(cut: slice) -> int:
    return int(cut.stop - cut.start)

"""Centred Gram matrices of many layers, each kept once: what is below the diagonal says all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import numpy.typing as npt

from redtest_onnx.metrics.arrays import Array, namespace
from redtest_onnx.metrics.cka import h_centre, hsic_products, hsic_scale, squared_norms, u_centre

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PackedGrams:
    """Centred Gram matrices [L, n, n] at half their size, with the same inner products.

    Attributes:
        rows: [L, n(n-1)/2] float64, the elements below the diagonals; times the root of 2, so that products
            of two rows are those of the two matrices. Biased ones are followed by their n diagonal elements.
            Zeros for a layer that does not vary.
        samples: n.
        unbiased: whether they were centred by `u_centre`, which leaves no diagonal, or by `h_centre`.
    """

    rows: Array
    samples: int
    unbiased: bool

    @classmethod
    def of(cls, grams: Iterable[Array], layers: int, samples: int, *, unbiased: bool = True) -> PackedGrams:
        """Centre and pack one Gram after the other.

        Args:
            grams: [n, n] float64 each, NumPy or CuPy; centred in place. The next one may take the memory of
                the last.
            layers: their number L, at least 1.
            samples: n.
            unbiased: by `u_centre`, else by `h_centre`.

        Raises:
            InputError: as `u_centre`.
        """
        rows = lower = None
        for k, gram in enumerate(grams):
            if rows is None:
                xp = namespace(gram)
                lower = _lower(xp, samples)
                rows = xp.empty((layers, len(lower) + (0 if unbiased else samples)))
            (u_centre if unbiased else h_centre)(gram, out=gram)
            _pack(gram, lower, rows[k])
        return cls(rows, samples, unbiased)

    def hsic(self, other: PackedGrams | None = None) -> Array:
        """HSIC of all pairs of layers, as `hsic_matrix`.

        Args:
            other: layers [M] measured on the same samples in the same order; these themselves if absent.

        Returns:
            [L, M] float64; NaN in the rows and columns of layers that do not vary.

        Raises:
            InputError: the two sets were measured on different numbers of samples.
        """
        other = other or self
        return hsic_products(self.rows, other.rows, (self.samples, other.samples), unbiased=self.unbiased)

    def own_hsic(self) -> Array:
        """[L] HSIC of each layer with itself; NaN for layers that do not vary."""
        own = squared_norms(self.rows)
        own *= hsic_scale(self.samples, unbiased=self.unbiased)
        own[own == 0] = np.nan
        return own

    def permuted(self, drawn: Sequence[tuple[Indices, Indices]]) -> PackedGrams:
        """Some layers, as if their samples had come in another order.

        Args:
            drawn: indices of layers, and in which order [n] their samples come; as often as wanted.
        """
        xp = namespace(self.rows)
        parts = []
        for layers, order in drawn:
            index = xp.asarray(self._permuted_index(order))
            parts += [xp.take(self.rows[layer], index) for layer in layers]
        return PackedGrams(xp.stack(parts), self.samples, self.unbiased)

    def _permuted_index(self, order: Indices) -> Indices:
        """Where the elements of a row come from if the samples come in another order."""
        i, j = np.tril_indices(self.samples, -1)
        later, earlier = np.maximum(order[i], order[j]), np.minimum(order[i], order[j])
        index: Indices = later * (later - 1) // 2 + earlier
        if self.unbiased:
            return index
        return np.concatenate([index, len(index) + order])


def _lower(xp: ModuleType, n: int) -> Array:
    """Where the elements below the diagonal of [n, n] lie in its memory, row by row."""
    i, j = np.tril_indices(n, -1)
    return xp.asarray(i * n + j)


def _pack(gram: Array, lower: Array, row: Array) -> None:
    xp = namespace(gram)
    below = row[: len(lower)]
    below[...] = xp.take(gram.reshape(-1), lower)
    below *= np.sqrt(2)
    if len(row) > len(lower):
        row[len(lower) :] = xp.diagonal(gram)

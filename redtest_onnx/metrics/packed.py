"""Gram matrices of many layers, each kept once: what is below the diagonal says all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType

import numpy as np

from redtest_onnx.arrays import Indices
from redtest_onnx.errors import InputError
from redtest_onnx.metrics.arrays import Array, namespace
from redtest_onnx.metrics.cka import (
    BIASED_SAMPLES,
    CONSTANT,
    UNBIASED_SAMPLES,
    centred_products,
    check_alike,
    gram_samples,
    hsic_of_sums,
    hsic_scale,
    squared_norms,
)

_QUIET = np.errstate(invalid="ignore", over="ignore")  # what is not finite becomes undefined, without words


@dataclass(frozen=True, eq=False)
class PackedGrams:
    """Gram matrices [L, n, n] at half their size, with the inner products of the centred ones.

    Centring costs several passes over each matrix, and changes inner products by what the sums of the rows
    say, see `centred_products`. The Grams should be nearly centred: where <K, L> is much larger, float64
    loses digits.

    Attributes:
        rows: [L, n(n-1)/2] float64, the elements below the diagonals; times the root of 2, so that products
            of two rows are those of the two matrices. Biased ones are followed by their n diagonal elements.
        sums: [L, n] float64, of the rows; unbiased ones without the diagonals.
        norms: [L] float64, <K~, K~>; 0 for a layer without similarity to measure: one that does not vary
            (rms at most 1e-5 of the Gram's), or with values that are not finite.
        samples: n.
        unbiased: whether HSIC is that without bias.
    """

    rows: Array
    sums: Array
    norms: Array
    samples: int
    unbiased: bool

    @classmethod
    @_QUIET
    def of(cls, grams: Iterable[Array], layers: int, samples: int, *, unbiased: bool = True) -> PackedGrams:
        """Pack one Gram after the other.

        Args:
            grams: [n, n] float64 each, NumPy or CuPy, contiguous. The next one may take the memory of the
                last.
            layers: their number L, at least 1.
            samples: n.
            unbiased: whether HSIC shall be that without bias.

        Raises:
            InputError: fewer than four samples (two with bias), or matrices that are not square.
        """
        width = samples * (samples - 1) // 2
        for k, gram in enumerate(grams):
            if k == 0:
                gram_samples(gram, UNBIASED_SAMPLES if unbiased else BIASED_SAMPLES)
                xp = namespace(gram)
                lower = _lower(xp, samples)
                rows = xp.empty((layers, width + (0 if unbiased else samples)))
                sums, raw = xp.empty((layers, samples)), xp.empty(layers)
            row = rows[k]
            xp.multiply(xp.take(gram.reshape(-1), lower), np.sqrt(2), out=row[:width])
            xp.sum(gram, axis=0, out=sums[k])
            diagonal = xp.diagonal(gram)
            if unbiased:
                sums[k] -= diagonal
            else:
                row[width:] = diagonal
            raw[k] = xp.vdot(row, row)
        return cls(rows, sums, _norms(raw, raw, sums, unbiased=unbiased), samples, unbiased)

    @_QUIET
    def hsic(self, other: PackedGrams | None = None) -> Array:
        """HSIC of all pairs of layers.

        Args:
            other: layers [M] measured on the same samples in the same order; these themselves if absent.

        Returns:
            [L, M] float64; NaN in the rows and columns of layers that do not vary.

        Raises:
            InputError: the two sets were measured on different numbers of samples.
        """
        other = other or self
        check_alike(self.samples, other.samples)
        products = self._products if other is self else self.rows @ other.rows.T
        hsic = hsic_of_sums(products, self.sums, other.sums, unbiased=self.unbiased)
        return _undefined(hsic, self.norms, other.norms)

    @_QUIET
    def hsic_without(self, left_out: Indices) -> Array:
        """HSIC of all pairs of layers on the other samples.

        A layer counts as one that does not vary where the samples left out are so large that rounding hides
        what the others differ in.

        Args:
            left_out: which samples.

        Returns:
            As `hsic`.

        Raises:
            InputError: fewer than four samples remain.
        """
        xp, gone = namespace(self.rows), np.unique(left_out)
        kept = np.setdiff1d(np.arange(self.samples), gone)
        if len(kept) < UNBIASED_SAMPLES:
            raise InputError(
                f"without {len(gone)} of {self.samples} samples too few are left", hint="use more samples"
            )
        between = _place(kept[:, None], gone)
        i, j = np.tril_indices(len(gone), -1)
        lost = [between.ravel(), _place(gone[i], gone[j])]
        if not self.unbiased:
            lost.append(self.samples * (self.samples - 1) // 2 + gone)
        part = xp.take(self.rows, xp.asarray(np.concatenate(lost)), axis=1)
        products = self._products - part @ part.T
        sums = xp.take(self.sums, xp.asarray(kept), axis=1)
        sums -= part[:, : between.size].reshape(len(part), *between.shape).sum(axis=2) / np.sqrt(2)
        raw, rest = xp.diagonal(self._products), xp.diagonal(products)
        norms = _norms(rest, raw, sums, unbiased=self.unbiased)
        return _undefined(hsic_of_sums(products, sums, sums, unbiased=self.unbiased), norms, norms)

    @cached_property
    def _products(self) -> Array:
        """[L, L] of the rows."""
        return self.rows @ self.rows.T

    def own_hsic(self) -> Array:
        """[L] HSIC of each layer with itself; NaN for layers that do not vary."""
        own = self.norms * hsic_scale(self.samples, unbiased=self.unbiased)
        own[own == 0] = np.nan
        return own

    def permuted(self, drawn: Sequence[tuple[Indices, Indices]]) -> PackedGrams:
        """Some layers, as if their samples had come in another order.

        Args:
            drawn: indices of layers, and in which order [n] their samples come; as often as wanted.
        """
        xp = namespace(self.rows)
        chosen = np.concatenate([layers for layers, _ in drawn])
        rows, sums = (xp.empty((len(chosen), each.shape[1])) for each in (self.rows, self.sums))
        done = 0
        for layers, order in drawn:
            index, samples = xp.asarray(self._permuted_index(order)), xp.asarray(order)
            for layer in layers:
                rows[done] = xp.take(self.rows[layer], index)
                sums[done] = xp.take(self.sums[layer], samples)
                done += 1
        return PackedGrams(rows, sums, xp.take(self.norms, xp.asarray(chosen)), self.samples, self.unbiased)

    def _permuted_index(self, order: Indices) -> Indices:
        """Where the elements of a row come from if the samples come in another order."""
        i, j = np.tril_indices(self.samples, -1)
        index = _place(order[i], order[j])
        if self.unbiased:
            return index
        return np.concatenate([index, len(index) + order])


def _lower(xp: ModuleType, n: int) -> Array:
    """Where the elements below the diagonal of [n, n] lie in its memory, row by row."""
    i, j = np.tril_indices(n, -1)
    return xp.asarray(i * n + j)


def _place(i: Indices, j: Indices) -> Indices:
    """Where the elements of two different samples each lie in a packed row."""
    later, earlier = np.maximum(i, j), np.minimum(i, j)
    place: Indices = later * (later - 1) // 2 + earlier
    return place


def _norms(products: Array, raw: Array, sums: Array, *, unbiased: bool) -> Array:
    """[L] squared norms after centring; 0 where nothing but rounding is left of what was there.

    Args:
        products: [L] of each row with itself.
        raw: [L] what rounding was in proportion to.
        sums: [L, n].
        unbiased: as in `PackedGrams`.
    """
    totals = sums.sum(axis=1)
    norms = centred_products(
        products, squared_norms(sums), (totals, totals), sums.shape[1], unbiased=unbiased
    )
    return namespace(sums).where(norms > CONSTANT**2 * raw, norms, 0.0)


def _undefined(hsic: Array, norms: Array, other_norms: Array) -> Array:
    """[L, M] HSIC, NaN in place where a layer does not vary."""
    hsic[norms == 0] = np.nan
    hsic[:, other_norms == 0] = np.nan
    return hsic

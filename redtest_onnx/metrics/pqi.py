"""PQ Index: how sparse a group of weights is in effect, and how many of them it needs.

Diao et al. (2023), arXiv 2302.05601. Computed in float64 from means of powers of w / max|w|, which neither
overflow nor depend on the scale of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from redtest_onnx.errors import InputError
from redtest_onnx.metrics.arrays import Array, namespace, to_numpy

Axis = int | tuple[int, ...]

# Bounds the memory of the float64 copy of a large tensor.
_BLOCK_ELEMENTS = 1 << 20

# Powers of rounded means exceed a whole number of weights by less than this share of it.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class PowerSums:
    """What the PQ Index needs to know of groups of weights; partial groups can be merged.

    Attributes:
        p: the smaller exponent.
        q: the larger exponent.
        count: [...] entries of each group.
        scale: [...] float64, the largest magnitude of each group.
        sum_p: [...] float64, the sum of (|w| / scale)^p.
        sum_q: [...] float64, the sum of (|w| / scale)^q.
    """

    p: float
    q: float
    count: Array
    scale: Array
    sum_p: Array
    sum_q: Array

    def merged(self, other: PowerSums) -> PowerSums:
        """The sums over both parts of the groups."""
        xp = namespace(self.scale)
        scale = xp.maximum(self.scale, other.scale)
        own, others = (_ratio(part.scale, scale) for part in (self, other))
        return PowerSums(
            p=self.p,
            q=self.q,
            count=self.count + other.count,
            scale=scale,
            sum_p=self.sum_p * own**self.p + other.sum_p * others**self.p,
            sum_q=self.sum_q * own**self.q + other.sum_q * others**self.q,
        )

    @classmethod
    def stacked(cls, parts: Sequence[PowerSums]) -> PowerSums:
        """The groups of all parts, one after the other."""
        xp = namespace(parts[0].scale)

        def joined(name: str) -> Array:
            return xp.concatenate([xp.atleast_1d(getattr(part, name)) for part in parts])

        names = ("count", "scale", "sum_p", "sum_q")
        return cls(parts[0].p, parts[0].q, *map(joined, names))

    def pooled(self) -> PowerSums:
        """All groups taken together as one."""
        xp = namespace(self.scale)
        # A sum of nothing is 0, a maximum of nothing is an error.
        scale = self.scale.max() if self.scale.size else self.scale.sum()
        shares = _ratio(self.scale, xp.asarray(scale))
        return PowerSums(
            p=self.p,
            q=self.q,
            count=self.count.sum(),
            scale=scale,
            sum_p=(self.sum_p * shares**self.p).sum(),
            sum_q=(self.sum_q * shares**self.q).sum(),
        )

    @property
    def log_norm_ratio(self) -> Array:
        """[...] float64, log(1 - I); keeps what the index itself rounds to 1. NaN where undefined."""
        xp = namespace(self.scale)
        count = xp.where(self.scale > 0, self.count, np.nan)
        log_ratio = xp.log(self.sum_p / count) / self.p - xp.log(self.sum_q / count) / self.q
        # Equal magnitudes can round to just above 0.
        return xp.minimum(log_ratio, 0.0)

    @property
    def index(self) -> Array:
        """[...] float64, 1 - mean(|w|^p)^(1/p) / mean(|w|^q)^(1/q); NaN where undefined."""
        return 0.0 - namespace(self.scale).expm1(self.log_norm_ratio)

    def retained(self, eta: float = 0.0) -> npt.NDArray[np.float64]:
        """`retained` of these groups, exact also where the index rounds to 1."""
        return _retained(to_numpy(self.count), to_numpy(self.log_norm_ratio), self.p, self.q, eta)


def power_sums(
    values: Array, p: float, q: float, axis: Axis | None = None, mask: Array | None = None
) -> PowerSums:
    """Sum the powers of each group of weights.

    Args:
        values: [...], any real dtype.
        p: the smaller exponent, above 0.
        q: the larger exponent.
        axis: the axes that a group extends over; all of them if absent.
        mask: [...] bool, False for entries that do not count (pruned ones); all count if absent.

    Raises:
        InputError: the exponents are not 0 < p < q, or the mask has another shape.
    """
    _check_exponents(p, q)
    if mask is not None and mask.shape != values.shape:
        raise InputError(f"a mask of shape {mask.shape} does not fit weights of shape {values.shape}")
    if axis is not None:
        return _sums(values, p, q, axis, mask)
    flat, flags = values.ravel(), None if mask is None else mask.ravel()
    total = _sums(flat[:0], p, q, 0, None)
    for start in range(0, flat.size, _BLOCK_ELEMENTS):
        part = slice(start, start + _BLOCK_ELEMENTS)
        total = total.merged(_sums(flat[part], p, q, 0, None if flags is None else flags[part]))
    return total


@overload
def pq_index(values: Array, p: float, q: float, axis: None = None, mask: Array | None = None) -> float: ...
@overload
def pq_index(values: Array, p: float, q: float, axis: Axis, mask: Array | None = None) -> Array: ...
def pq_index(
    values: Array, p: float, q: float, axis: Axis | None = None, mask: Array | None = None
) -> float | Array:
    """PQ Index I = 1 - d^(1/q - 1/p) |w|_p / |w|_q of groups of d weights (definition 3.1).

    0 where all magnitudes are equal, and in a group of one; towards 1 the fewer weights carry the group.
    Undefined for groups that are empty, all zero or not finite.

    Args:
        values: [...], any real dtype.
        p: the smaller exponent, above 0; .5 or 1 are usual.
        q: the larger exponent; 1 or 2 are usual.
        axis: the axes that a group extends over; all of them if absent.
        mask: [...] bool, False for entries that do not count; all count if absent.

    Returns:
        [...] float64 without the axes of the group, a float for one group; NaN where undefined.

    Raises:
        InputError: the exponents are not 0 < p < q, or the mask has another shape.
    """
    index = power_sums(values, p, q, axis, mask).index
    return float(index) if axis is None else index


def retained(
    d: npt.ArrayLike, index: npt.ArrayLike, p: float, q: float, eta: float = 0.0
) -> npt.NDArray[np.float64]:
    """How many of d weights a group needs at least: the lower bound of theorem 3.3.

    r = ceil(d (1 + eta)^(-q/(q-p)) (1 - I)^(pq/(q-p))).

    Args:
        d: [...] entries of each group, as counted for its index.
        index: [...] PQ Index of each group.
        p: the smaller exponent.
        q: the larger exponent.
        eta: how much may be removed: the sum of |w|^p over the removed weights, relative
            to that over the kept ones; above -1, 0: only zeros are removed.

    Returns:
        [...] float64, whole numbers from 1 to d; NaN where the index is undefined.

    Raises:
        InputError: the exponents are not 0 < p < q, or eta is not above -1.
    """
    _check_exponents(p, q)
    with np.errstate(divide="ignore"):
        log_norm_ratio = np.log1p(-np.asarray(index, np.float64))
    return _retained(np.asarray(d), log_norm_ratio, p, q, eta)


def _retained(
    size: npt.NDArray[Any], log_norm_ratio: npt.NDArray[Any], p: float, q: float, eta: float
) -> npt.NDArray[np.float64]:
    if not -1 < eta < math.inf:
        raise InputError(f"eta must be above -1, got {eta}", hint="0 is the papers' value")
    share = np.exp((p * log_norm_ratio - math.log1p(eta)) * q / (q - p))
    kept: npt.NDArray[np.float64] = np.clip(np.ceil(size * share * (1 - _ROUNDING)), 1.0, size)
    return kept


def _sums(values: Array, p: float, q: float, axis: Axis, mask: Array | None) -> PowerSums:
    xp = namespace(values)
    magnitudes = xp.abs(values.astype(xp.float64))
    counted = xp.ones(values.shape, dtype=bool) if mask is None else mask
    magnitudes[~counted] = 0
    # An empty group has no maximum, but a sum of 0.
    largest = magnitudes.max if magnitudes.size else magnitudes.sum
    with np.errstate(invalid="ignore"):
        scale = largest(axis=axis, keepdims=True)
        magnitudes /= xp.where(scale > 0, scale, 1.0)
    return PowerSums(
        p=p,
        q=q,
        count=counted.sum(axis=axis),
        scale=xp.squeeze(scale, axis=axis),
        sum_p=(magnitudes**p).sum(axis=axis),
        sum_q=(magnitudes**q).sum(axis=axis),
    )


def _ratio(part: Array, whole: Array) -> Array:
    """part / whole, 0 where both are 0."""
    with np.errstate(invalid="ignore"):
        return part / namespace(whole).where(whole > 0, whole, 1.0)


def _check_exponents(p: float, q: float) -> None:
    if not 0 < p < q < math.inf:
        raise InputError(
            f"the PQ Index needs exponents 0 < p < q, got p={p} and q={q}", hint="p=0.5 and q=1 are usual"
        )

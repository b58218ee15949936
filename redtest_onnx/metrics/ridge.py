"""Ridge least squares for several groups of equations, from sums over rows; `few_rows` is for few of them.

Products of single-precision rows are taken in single precision, from rows shifted by the mean of the first
ones, and added up in float64: the normal matrix differs from that of float64 products by about 1e-7 of its
largest entry, far less than the smallest penalty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Float64s, Values
from redtest_onnx.metrics.least_squares import RidgeFit
from redtest_onnx.metrics.penalised import Diagnosis, diagnosis, explained, solved
from redtest_onnx.metrics.symmetric import SymmetricSums, dense_total
from redtest_onnx.metrics.tiled import Each, in_turn

_CHUNK = 4096  # rows whose products are summed in the precision of the rows
_BAND = 256  # rows of a normal matrix that outer products are added to at a time


class NormalEquations:
    """Sums over rows that are all a least-squares fit needs.

    Memory is that of groups x p x (p / 2 + q) numbers for large p, whatever the number of rows; a solution
    takes p x p for one group at a time.

    Args:
        inputs: p, size of x in one group.
        outputs: q, size of y in one group.
        groups: number of groups.
        each: solves for some of the outputs at a time.
    """

    def __init__(self, inputs: int, outputs: int, groups: int = 1, *, each: Each = in_turn) -> None:
        self.rows = 0
        self._each = each
        self._complete = True  # no row was left out so far
        self._known = False  # the rows of x are those of other targets
        self.shift: npt.NDArray[Any] | None = None
        """[groups, p] what is taken off x before products are formed; all sums that are merged share it."""
        self.products = [SymmetricSums.zeros(groups, inputs)]
        """Of [groups, p, p], whose sum is that of the products of x, from the shift."""
        self.xy: npt.NDArray[Any] = np.zeros((groups, inputs, outputs))
        self.x: Float64s = np.zeros((groups, inputs))
        self.y: Float64s = np.zeros((groups, outputs))
        self.yy: Float64s = np.zeros(groups)

    def add(self, x: Values, y: Values) -> None:
        """Add rows x [n, groups, p], y [n, groups, q]; those with values that are not finite are left out."""
        for start in range(0, len(x), _CHUNK):
            self.include(self.sums(x[start : start + _CHUNK], y[start : start + _CHUNK]))

    def choose_shift(self, x: Values, y: Values) -> None:
        """Take the mean of the first rows of all as the value about which products are formed."""
        a = same_float(x)
        finite = _finite_rows(a, same_float(y))
        a = a if finite.all() else a[finite]
        sums = _column_sums(a)
        if not np.isfinite(sums).all():  # of values near the end of single precision
            sums = _column_sums(a.astype(np.float64))
        self.shift = sums.reshape(a.shape[1:]) / max(len(a), 1)

    def sums(self, x: Values, y: Values) -> NormalEquations:
        """The sums of some rows alone, in the precision of the rows; may run beside others in a thread.

        Args:
            x: [n, groups, p].
            y: [n, groups, q].

        Returns:
            What `include` takes. Behind `without_targets`, of x it holds what is to be taken off again: rows
            whose new targets are not finite.
        """
        if self.shift is None:
            self.choose_shift(x, y)
        a, b = same_float(x), same_float(y)
        found = object.__new__(NormalEquations)
        found.shift, found._complete = self.shift, True
        with np.errstate(over="ignore", invalid="ignore"):
            found._multiply(a, b, self._known)
            if not found._finite:  # which is found here, so that rows are not scanned for it
                finite = _finite_rows(a, b)
                found._complete = bool(finite.all())
                wide = a.astype(np.float64)
                found._multiply(wide[finite], b[finite].astype(np.float64), self._known)
                if self._known and not found._complete:
                    found._take_off(wide[~finite])
        return found

    def _multiply(self, x: npt.NDArray[Any], y: npt.NDArray[Any], targets_only: bool) -> None:
        """Set the sums to those of these rows, with products in their precision."""
        a = self._from_shift(x)
        b = np.ascontiguousarray(y.transpose(1, 0, 2))
        ones = np.ones((1, a.shape[1]), a.dtype)
        self.rows = 0 if targets_only else len(x)
        self.products = [] if targets_only else [SymmetricSums.of_rows(a)]
        self.x = np.zeros((1, 1)) if targets_only else (ones @ a)[:, 0].astype(np.float64)
        self.xy = a.transpose(0, 2, 1) @ b
        wide = b.astype(np.float64, copy=False)
        self.y = (np.ones((1, wide.shape[1])) @ wide)[:, 0]
        self.yy = np.array([np.vdot(part, part) for part in wide])

    def _take_off(self, x: npt.NDArray[np.float64]) -> None:
        """Take rows off what is summed up of x alone."""
        a = self._from_shift(x)
        self.rows -= len(x)
        self.products.append(SymmetricSums.of_rows(a).negative())
        self.x = self.x - a.sum(axis=1)

    def _from_shift(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """[groups, n, p] rows less the shift, in their precision."""
        assert self.shift is not None
        return np.ascontiguousarray((x - self.shift.astype(x.dtype)).transpose(1, 0, 2))

    def include(self, part: NormalEquations) -> None:
        """Add the sums of further rows, which `sums` made."""
        self.shift = part.shift
        self._complete &= part._complete
        self.rows += part.rows
        if not self._known:
            self.products[0].add(part.products[0])
        elif len(self.products) == 1:  # which is that of other targets, too
            self.products = [*self.products, *part.products]
        elif part.products:
            self.products[1].add(part.products[0])
        self.x = self.x + part.x
        self.xy += part.xy
        self.y += part.y
        self.yy += part.yy

    def without_targets(self) -> NormalEquations:
        """The same rows of x, which are to be added again in the same order, with other targets.

        Their products are taken as known, unless rows were left out: others may be so now.
        """
        found = copy(self)
        found.xy, found.y, found.yy = (np.zeros_like(total) for total in (self.xy, self.y, self.yy))
        found._known = self._complete
        if not self._complete:
            groups, size = self.x.shape
            found.rows, found.x, found._complete = 0, np.zeros_like(self.x), True
            found.products = [SymmetricSums.zeros(groups, size)]
        return found

    def merged(self, other: Self) -> Self:
        """These and other rows of the same sizes; no more may be added to either."""
        found = copy(self)
        found.shift = self.shift if self.shift is not None else other.shift
        found.rows = self.rows + other.rows
        found.products = [*self.products, *other.products]  # added up where they are needed
        for name in ("xy", "x", "y", "yy"):
            setattr(found, name, getattr(self, name) + getattr(other, name))
        if other.rows and self.rows and not np.array_equal(self._offset, other._offset):
            found = self._shifted_together(other, found)
        return found

    @property
    def _finite(self) -> bool:
        """Whether all rows and the sums of their products are."""
        return bool(np.isfinite(self.xy).all()) and all(term.finite for term in self.products)

    @property
    def _offset(self) -> Float64s:
        """[groups, p] the shift in float64; zero where there are no rows."""
        if self.shift is None:
            return np.zeros_like(self.x)
        offset: Float64s = self.shift.astype(np.float64)
        return offset

    def _shifted_together(self, other: Self, found: Self) -> Self:
        """Sums of both about the shift of the first."""
        d = other._offset - self._offset
        found.products.append(SymmetricSums.of_pairs(other.x + other.rows / 2 * d, d))
        found.xy += d[:, :, None] * other.y[:, None, :]
        found.x += other.rows * d
        return found

    def residual(self, fit: RidgeFit) -> Float64s:
        """[groups] |y - x W - b|^2 of a fit on these rows, relative to |y|^2; 1 without targets."""
        w = fit.weight
        b = fit.bias + _times(self._offset, w)
        predicted = sum((term.times(w) for term in self.products), -2 * self.xy)
        error = self.yy + (w * predicted).sum(axis=(1, 2))
        error += (b * (self.rows * b + 2 * (_times(self.x, w) - self.y))).sum(axis=1)
        return np.where(self.yy > 0, error / np.where(self.yy > 0, self.yy, 1), 1.0)

    def solve(self, ridge: float | Float64s, *, intercept: bool = True) -> RidgeFit:
        """Minimise |y - x W - b|^2 + lambda |W|^2 with lambda = `ridge` (one, or [groups]) times the mean
        variance of x. With no rows at all the map is zero."""
        centred = self._centred(intercept)
        fit = centred.solve(ridge, self._each)
        energy = self.yy - max(self.rows, 1) * np.square(centred.mean_y).sum(axis=1)
        return replace(fit, explained=explained(fit.weight, centred.xy, fit.penalty, energy))

    def errors_on(self, check: Self, *, intercept: bool = True) -> Callable[[float], Float64s]:
        """What gives `check.residual` [groups] of the solution of these equations for a penalty."""
        centred = self._centred(intercept)
        return lambda ridge: check.residual(centred.solve(ridge))

    def diagnose(self, fit: RidgeFit, *, intercept: bool = True) -> Diagnosis:
        """How well a fit to these rows is determined."""
        return diagnosis(self._centred(intercept).matrix, fit.penalty, self.xy.shape[1])

    def _centred(self, intercept: bool) -> _Centred:
        """The equations about the means of x and y; about zero without bias."""
        count = max(self.rows, 1)
        if intercept:
            mean_y = self.y / count
            near = self.x / count  # from the shift
            xy = self.xy - self.x[:, :, None] * mean_y[:, None, :]
            shifts = [(self.x, -near)]
            return _Centred(self.products, shifts, xy, near + self._offset, mean_y)
        d = self._offset
        xy = self.xy + d[:, :, None] * self.y[:, None, :]
        shifts = [(self.x, d), (d, self.x), (self.rows * d, d)]
        return _Centred(self.products, shifts, xy, np.zeros_like(self.x), np.zeros_like(self.y))


@dataclass(frozen=True)
class _Centred:
    """Equations about the means of x and y.

    Attributes:
        terms: of [groups, p, p] each; the normal matrix is their sum, and that of the outer products of
        shifts: pairs of [groups, p].
        xy: [groups, p, q] right-hand sides.
        mean_x: [groups, p].
        mean_y: [groups, q].
    """

    terms: Sequence[SymmetricSums]
    shifts: Sequence[tuple[Float64s, Float64s]]
    xy: Float64s
    mean_x: Float64s
    mean_y: Float64s

    def matrix(self, group: int) -> Float64s:
        """[p, p] the normal matrix of a group, made anew: at most one is held at a time."""
        found = dense_total(self.terms, group)
        for start in range(0, len(found), _BAND):
            band = slice(start, start + _BAND)
            for a, b in self.shifts:
                found[band] += a[group, band, None] * b[group]
        return found

    def _scale(self) -> Float64s:
        """[groups] the mean variance of x, times the rows."""
        diagonals = [term.diagonal for term in self.terms]
        total = np.sum([*diagonals, *(a * b for a, b in self.shifts)], axis=(0, 2))
        scale: Float64s = np.maximum(total / max(self.mean_x.shape[1], 1), 0)
        return scale

    def solve(self, ridge: float | Float64s, each: Each = in_turn) -> RidgeFit:
        """See `NormalEquations.solve`; what is explained is left unknown."""
        scale = self._scale()
        penalty: Float64s = np.broadcast_to(ridge * scale, scale.shape)
        weight = solved(self.matrix, penalty, self.xy, scale > 0, each)
        bias = self.mean_y - _times(self.mean_x, weight)
        return RidgeFit(weight, bias, np.full(len(weight), np.nan), penalty)


def _times(x: Float64s, w: Float64s) -> Float64s:
    """[groups, q] products of x [groups, p] and w [groups, p, q]."""
    found: Float64s = (x[:, None] @ w)[:, 0]
    return found


def _finite_rows(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """[n] which rows [n, groups, p] and [n, groups, q] hold finite values alone."""
    finite: npt.NDArray[np.bool_] = np.isfinite(x).all(axis=(1, 2)) & np.isfinite(y).all(axis=(1, 2))
    return finite


def _column_sums(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[columns] sums over the rows of [n, ...]; not finite where a value or, in this dtype, a sum isn't."""
    flat = values.reshape(len(values), prod(values.shape[1:]))  # of no rows, too
    with np.errstate(over="ignore", invalid="ignore"):
        sums: npt.NDArray[Any] = np.ones(len(flat), flat.dtype) @ flat
    return sums


def same_float(values: Values) -> npt.NDArray[Any]:
    """Values in single precision, or in float64 if they are wider."""
    return np.asarray(values, np.float64 if values.dtype.itemsize > 4 else np.float32)

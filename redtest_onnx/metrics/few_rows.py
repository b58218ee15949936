"""Ridge least squares in the space of the rows, where there are fewer of them than unknowns.

Inner products of rows of single precision are taken in that, from a point near their mean, and held in
float64: they are off by about 1e-7 of the largest one, as those of `ridge`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Float64s, Numbers, Values
from redtest_onnx.metrics.least_squares import RidgeFit
from redtest_onnx.metrics.penalised import Diagnosis, diagnosis, solved
from redtest_onnx.metrics.ridge import NormalEquations, same_float
from redtest_onnx.metrics.tiled import Each, gram, in_tiles, in_turn, transposed_product

_BLOCK = 256  # rows that are held in float64 at a time


class FewRows:
    """Equations of one group with fewer rows than unknowns, solved in the space of the rows.

    The solution is that of `NormalEquations` (W = X' (X X' + lambda I)^-1 Y), from a system of n x n numbers.
    Inner products are formed once for a fit to some rows, its errors on others, the fit to all of them, and
    for other targets of the same rows.

    Args:
        each: runs large products.
    """

    def __init__(self, each: Each = in_turn) -> None:
        self._each = each
        self._x: list[Numbers] = []  # the same list in equations with other targets
        self._finite: list[npt.NDArray[np.bool_]] = []
        self._y: list[Numbers] = []
        self._known = False
        self._own: _Products | None = None
        self._joint: tuple[list[Numbers], _Products] | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(map(len, self._x))

    def add(self, x: Values, y: Values) -> None:
        """Add rows x [n, 1, p] and y [n, 1, q]; those with values that are not finite are left out.

        Behind `without_targets`, x is taken as known.
        """
        if self._known:
            self._add_targets(same_float(y[:, 0])[self._finite[len(self._y)]])
            return
        a, b = same_float(x[:, 0]), same_float(y[:, 0])
        finite = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
        self._finite.append(finite)
        self._x.append(a if finite.all() else a[finite])
        self._y.append(b if finite.all() else b[finite])
        self._own = self._joint = None

    def _add_targets(self, y: Numbers) -> None:
        finite = np.isfinite(y).all(axis=1)
        if not finite.all():
            place = len(self._y)
            self._x = [*self._x[:place], self._x[place][finite], *self._x[place + 1 :]]
            left = self._finite[place].copy()
            left[left] = finite
            self._finite = [*self._finite[:place], left, *self._finite[place + 1 :]]
            self._own = self._joint = None
        self._y.append(y[finite])

    def without_targets(self) -> FewRows:
        """The same rows of x, whose other targets are to be added in the same order."""
        found = copy(self)
        found._y, found._known = [], True
        return found

    def merged(self, other: Self) -> Self:
        """These and other rows of the same sizes; no more may be added to either."""
        found = type(self)(self._each)
        found._x, found._y = [*self._x, *other._x], [*self._y, *other._y]
        found._own = self._known_beside(other)
        return found

    def added_to(self, equations: NormalEquations) -> NormalEquations:
        """Normal equations with these rows added."""
        for x, y in zip(self._x, self._y, strict=True):
            equations.add(x[:, None], y[:, None])
        return equations

    def _known_beside(self, other: Self) -> _Products | None:
        """The products of these rows and others behind them, if they were formed already."""
        if self._joint is None or self._joint[0] is not other._x:
            return None
        return self._joint[1] if len(self._joint[1].inner) == self.rows + other.rows else None

    def residual(self, fit: RidgeFit) -> Float64s:
        """[1] |y - x W - b|^2 of a fit on these rows, relative to |y|^2; 1 without targets."""
        error = total = 0.0
        weight = fit.weight[0]
        for x, y in zip(self._x, self._y, strict=True):
            total += float(np.square(y, dtype=np.float64).sum())
            error += float(np.square(y - x @ weight - fit.bias[0]).sum())
        return np.array([error / total if total > 0 else 1.0])

    def errors_on(self, check: Self, *, intercept: bool = True) -> Callable[[float], Float64s]:
        """What gives `check.residual` [1] of the solution for a penalty, found in the space of the rows."""
        if not check._y:
            return lambda ridge: np.ones(1)
        joint = self._known_beside(check)
        if joint is None:
            joint = _Products.of([*self._x, *check._x], self._each)
            self._joint = check._x, joint
        count = self.rows
        inner, unknowns = joint.about_mean(count, intercept).inner, joint.near.shape[1]
        y, mean_y = _about_mean(self._y, intercept)
        goals = np.concatenate(check._y, dtype=np.float64)
        total = float(np.square(goals).sum())
        goals -= mean_y

        def error(ridge: float) -> Float64s:
            dual, _ = _dual(inner[:count, :count], y, ridge, unknowns)
            return np.array(
                [float(np.square(goals - inner[count:, :count] @ dual).sum()) / total if total > 0 else 1.0]
            )

        return error

    def _centred(self, intercept: bool) -> _Centred:
        self._own = self._own or _Products.of(self._x, self._each)
        return self._own.about_mean(self.rows, intercept)

    def solve(self, ridge: float | Float64s, *, intercept: bool = True) -> RidgeFit:
        """As that of `NormalEquations`."""
        x = self._centred(intercept)
        y, mean_y = _about_mean(self._y, intercept)
        dual, penalty = _dual(x.inner, y, ridge, len(x.mean), self._each)
        weight = x.transposed_times(dual, self._each)
        # Of W = X' D: <W, X' Y> + lambda |W|^2 in the space of the rows.
        predicted = np.empty_like(dual)
        in_tiles(lambda part: np.matmul(x.inner[part], dual, out=predicted[part]), len(dual), self._each)
        explained = float(np.vdot(predicted, y)) + float(penalty[0]) * float(np.vdot(dual, predicted))
        energy = float(np.square(y).sum())
        share = np.array([explained / energy if energy > 0 else 0.0])
        return RidgeFit(weight[None], (mean_y - x.mean @ weight)[None], share, penalty)

    def diagnose(self, fit: RidgeFit, *, intercept: bool = True) -> Diagnosis:
        """How well a fit to these rows is determined."""
        x = self._centred(intercept)
        return diagnosis(lambda group: x.inner.copy(), fit.penalty, len(x.mean))


@dataclass(frozen=True, eq=False)
class _Products:
    """Rows and their inner products.

    Attributes:
        near: [n, p] rows less a point near their mean, in their precision.
        point: [p] the point.
        inner: [n, n] inner products of `near`.
    """

    near: Numbers
    point: Float64s
    inner: Float64s

    @classmethod
    def of(cls, parts: Sequence[Numbers], each: Each) -> _Products:
        """Of all rows [n, p] of some parts."""
        near = np.concatenate(parts)
        point = _mean(near).astype(near.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            near -= point
            inner = gram(near, each)
        if not np.isfinite(inner.diagonal()).all():  # of values near the end of single precision
            wide = [part.astype(np.float64) for part in parts]
            return cls.of(wide, each) if near.dtype != np.float64 else cls(near, point, inner)
        return cls(near, point.astype(np.float64), inner)

    def about_mean(self, count: int, intercept: bool) -> _Centred:
        """All rows about the mean of the first ones; about zero without bias."""
        mean = self.point + _mean(self.near[:count]) if intercept else np.zeros(len(self.point))
        offset = self.point - mean
        blocks = np.array_split(self.near, 1 + len(self.near) // _BLOCK)
        lean = np.concatenate([block @ offset for block in blocks])
        inner = self.inner + lean
        inner += lean[:, None] + offset @ offset
        return _Centred(self.near, offset, inner, mean)


@dataclass(frozen=True, eq=False)
class _Centred:
    """Rows about a mean.

    Attributes:
        near: [n, p] rows less a point near the mean.
        offset: [p] that point less the mean.
        inner: [n, n] inner products of rows less the mean.
        mean: [p].
    """

    near: Numbers
    offset: Float64s
    inner: Float64s
    mean: Float64s

    def transposed_times(self, right: Float64s, each: Each) -> Float64s:
        """[p, q] x' right of rows less the mean and [n, q]."""
        found = transposed_product(self.near, right, each)
        found += self.offset[:, None] * right.sum(axis=0)
        return found


def _mean(rows: Numbers) -> Float64s:
    """[p], in float64; zero of no rows."""
    found: Float64s = rows.mean(axis=0, dtype=np.float64) if len(rows) else np.zeros(rows.shape[1])
    return found


def _about_mean(parts: Sequence[Numbers], intercept: bool) -> tuple[Float64s, Float64s]:
    """Targets [n, q] about their mean, and that; about zero without bias."""
    y: Float64s = np.concatenate(parts, dtype=np.float64)
    mean = _mean(y) if intercept else np.zeros(y.shape[1])
    return y - mean, mean


def _dual(
    inner: Float64s, y: Float64s, ridge: float | Float64s, unknowns: int, each: Each = in_turn
) -> tuple[Float64s, Float64s]:
    """[n, q] D of W = X' D, and the penalty [1]."""
    scale = float(np.trace(inner)) / max(unknowns, 1)
    penalty = np.atleast_1d(np.asarray(ridge, np.float64)) * scale
    found = solved(lambda group: inner.copy(), penalty, y[None], np.array([scale > 0]), each)
    return found[0], penalty

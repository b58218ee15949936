"""Ridge least squares in the space of the rows, where there are fewer of them than unknowns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from redtest_onnx.metrics.least_squares import RidgeFit, Rows
from redtest_onnx.metrics.penalised import Diagnosis, Float64s, diagnosis, solved
from redtest_onnx.metrics.ridge import same_float

Floats = npt.NDArray[Any]


class FewRows:
    """Equations of one group with fewer rows than unknowns, solved in the space of the rows.

    The solution is that of `NormalEquations` (W = X' (X X' + lambda I)^-1 Y), from a system of n x n numbers.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[Floats, Floats]] = []
        self._known: tuple[int, bool, Float64s] | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(len(x) for x, _ in self._parts)

    def add(self, x: Rows, y: Rows) -> None:
        """Add rows x [n, 1, p] and y [n, 1, q]; those with values that are not finite are left out."""
        a, b = same_float(x[:, 0]), same_float(y[:, 0])
        finite = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
        self._parts.append((a, b) if finite.all() else (a[finite], b[finite]))

    def merged(self, other: Self) -> Self:
        """These and other rows of the same sizes."""
        found = type(self)()
        found._parts = [*self._parts, *other._parts]
        return found

    def _values(self, intercept: bool) -> tuple[Float64s, Float64s, Float64s, Float64s]:
        """x and y about their means, and the means; about zero without bias."""
        x, y = (_joined(parts) for parts in zip(*self._parts, strict=True))
        mean_x, mean_y = np.zeros(x.shape[1]), np.zeros(y.shape[1])
        if intercept and len(x):
            mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
            x -= mean_x
            y -= mean_y
        return x, y, mean_x, mean_y

    def _gram(self, x: Float64s, intercept: bool) -> Float64s:
        """[n, n] inner products of the rows, formed once."""
        if self._known is None or self._known[:2] != (len(x), intercept):
            self._known = len(x), intercept, x @ x.T
        return self._known[2]

    def residual(self, fit: RidgeFit) -> Float64s:
        """[1] |y - x W - b|^2 of a fit on these rows, relative to |y|^2; 1 without targets."""
        error = total = 0.0
        weight = fit.weight[0]
        for x, y in self._parts:
            total += float(np.square(y).sum())
            error += float(np.square(y - x @ weight - fit.bias[0]).sum())
        return np.array([error / total if total > 0 else 1.0])

    def errors_on(self, check: Self, *, intercept: bool = True) -> Callable[[float], Float64s]:
        """What gives `check.residual` [1] of the solution for a penalty, found in the space of the rows."""
        if not check._parts:
            return lambda ridge: np.ones(1)
        x, y, mean_x, mean_y = self._values(intercept)
        gram = self._gram(x, intercept)
        others, goals = (_joined(parts) for parts in zip(*check._parts, strict=True))
        others -= mean_x
        crossed = others @ x.T
        goals -= mean_y
        total = float(np.square(goals + mean_y).sum())
        unknowns = x.shape[1]

        def error(ridge: float) -> Float64s:
            dual, _ = _dual(gram, y, ridge, unknowns)
            return np.array([float(np.square(goals - crossed @ dual).sum()) / total if total > 0 else 1.0])

        return error

    def solve(self, ridge: float | Float64s, *, intercept: bool = True) -> RidgeFit:
        """As that of `NormalEquations`."""
        x, y, mean_x, mean_y = self._values(intercept)
        gram = self._gram(x, intercept)
        dual, penalty = _dual(gram, y, ridge, x.shape[1])
        weight: Float64s = x.T @ dual
        # Of W = X' D: <W, X' Y> + lambda |W|^2 in the space of the rows.
        predicted = gram @ dual
        explained = float(np.vdot(predicted, y)) + float(penalty[0]) * float(np.vdot(dual, predicted))
        energy = float(np.square(y).sum())
        share = np.array([explained / energy if energy > 0 else 0.0])
        return RidgeFit(weight[None], (mean_y - mean_x @ weight)[None], share, penalty)

    def diagnose(self, fit: RidgeFit, *, intercept: bool = True) -> Diagnosis:
        """How well a fit to these rows is determined."""
        x = self._values(intercept)[0]
        gram = self._gram(x, intercept)
        return diagnosis(lambda group: gram.copy(), fit.penalty, x.shape[1])


def _dual(gram: Float64s, y: Float64s, ridge: float | Float64s, unknowns: int) -> tuple[Float64s, Float64s]:
    """[n, q] D of W = X' D, and the penalty [1]."""
    scale = float(np.trace(gram)) / max(unknowns, 1)
    penalty = np.atleast_1d(np.asarray(ridge, np.float64)) * scale
    return solved(lambda group: gram.copy(), penalty, y[None], np.array([scale > 0]))[0], penalty


def _joined(parts: Sequence[Floats]) -> Float64s:
    """All rows in float64, in a new array."""
    found: Float64s = np.concatenate(parts, dtype=np.float64)
    return found

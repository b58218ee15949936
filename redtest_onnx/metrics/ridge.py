"""Ridge least squares from accumulated normal equations, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RidgeFit:
    """A linear map y ~ x W + b.

    Attributes:
        weight: [p, q] float64.
        bias: [q] float64.
        explained: share of the targets' energy that the map explains, on the rows it was fitted to.
        condition: condition number of the regularised normal matrix.
        rank: number of directions of x that carry more than the regularisation.
    """

    weight: Float64s
    bias: Float64s
    explained: float
    condition: float
    rank: int


PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def best_fit(train: NormalEquations, check: NormalEquations, *, intercept: bool = True) -> RidgeFit | None:
    """Choose the penalty on rows that the fit does not see, then fit to all rows.

    Args:
        train: rows to fit to; the rows of `check` are added to it.
        check: rows to judge the penalties on.
        intercept: whether a bias is fitted.

    Returns:
        The fit; None where no penalty gives less error on `check` than no correction at all.
    """
    errors = {ridge: check.residual(train.solve(ridge, intercept=intercept)) for ridge in PENALTIES}
    best = min(errors, key=lambda ridge: errors[ridge])
    if not errors[best] < 1:
        return None
    train.merge(check)
    return train.solve(best, intercept=intercept)


class NormalEquations:
    """Sums over rows of x [n, p] and y [n, q] that are all a least-squares fit needs.

    Memory is that of p x (p + q) numbers, whatever the number of rows.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        self.rows = 0
        self._xx = np.zeros((inputs, inputs))
        self._xy = np.zeros((inputs, outputs))
        self._x = np.zeros(inputs)
        self._y = np.zeros(outputs)
        self._yy = 0.0

    def add(self, x: npt.NDArray[np.generic], y: npt.NDArray[np.generic]) -> None:
        """Add rows; those with values that are not finite are left out."""
        a: Float64s = x.astype(np.float64)
        b: Float64s = y.astype(np.float64)
        finite = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
        if not finite.all():
            a, b = a[finite], b[finite]
        self.rows += len(a)
        self._xx += a.T @ a
        self._xy += a.T @ b
        self._x += a.sum(axis=0)
        self._y += b.sum(axis=0)
        self._yy += float(np.square(b).sum())

    def merge(self, other: NormalEquations) -> None:
        """Add another set of rows of the same sizes."""
        self.rows += other.rows
        self._xx += other._xx
        self._xy += other._xy
        self._x += other._x
        self._y += other._y
        self._yy += other._yy

    def residual(self, fit: RidgeFit) -> float:
        """|y - x W - b|^2 of a fit on these rows, relative to |y|^2; 1 without targets."""
        if self._yy <= 0:
            return 1.0
        w, b = fit.weight, fit.bias
        error = self._yy - 2 * np.sum(w * self._xy) - 2 * b @ self._y + np.sum(w * (self._xx @ w))
        error += 2 * (self._x @ w) @ b + self.rows * (b @ b)
        return float(error / self._yy)

    def solve(self, ridge: float, *, intercept: bool = True) -> RidgeFit:
        """Minimise |y - x W - b|^2 + lambda |W|^2 with lambda = `ridge` times the mean variance of x.

        The eigenvalues of the normal matrix are bounded below by lambda, so constant, collinear and too few
        rows all give finite values; with no rows at all the map is zero.
        """
        count = max(self.rows, 1)
        mean_x = self._x / count if intercept else np.zeros_like(self._x)
        mean_y = self._y / count if intercept else np.zeros_like(self._y)
        xx = self._xx - count * np.outer(mean_x, mean_x)
        xy = self._xy - count * np.outer(mean_x, mean_y)
        values, vectors = np.linalg.eigh(xx)
        values = np.maximum(values, 0)
        scale = float(values.mean()) if len(values) else 0.0
        penalty = ridge * scale
        if scale <= 0:
            weight = np.zeros_like(xy)
            return RidgeFit(weight, mean_y, 0.0, 1.0, 0)
        weight = vectors @ ((vectors.T @ xy) / (values + penalty)[:, None])
        energy = self._yy - count * float(mean_y @ mean_y)
        explained = 2 * float(np.sum(weight * xy)) - float(np.sum(weight * (xx @ weight)))
        return RidgeFit(
            weight,
            mean_y - mean_x @ weight,
            explained / energy if energy > 0 else 0.0,
            float((values[-1] + penalty) / (values[0] + penalty)),
            int(np.sum(values > penalty)),
        )

"""Ridge least squares whose penalty is chosen on rows that the fit does not see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np

from redtest_onnx.arrays import Float64s, Values
from redtest_onnx.metrics.penalised import Diagnosis
from redtest_onnx.metrics.tiled import Each, in_turn

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_NEAR = 1e-3  # of the least error: so much more is taken for the sake of a larger penalty


@dataclass(frozen=True)
class RidgeFit:
    """Linear maps y ~ x W + b, one per group.

    Attributes:
        weight: [groups, p, q] float64.
        bias: [groups, q] float64.
        explained: [groups] share of the targets' energy that the map explains, on the rows it was fitted to.
        penalty: [groups] what was added to the diagonal of the normal matrix.
    """

    weight: Float64s
    bias: Float64s
    explained: Float64s
    penalty: Float64s


class LeastSquares(Protocol):
    """Equations y ~ x W + b that rows are added to."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    def add(self, x: Values, y: Values) -> None:
        """Add rows x [n, groups, p], y [n, groups, q]; those with values that are not finite are left out."""

    def merged(self, other: Self) -> Self:
        """These equations and others of the same kind and sizes."""

    def residual(self, fit: RidgeFit) -> Float64s:
        """[groups] |y - x W - b|^2 of a fit on these rows, relative to |y|^2; 1 without targets."""

    def solve(self, ridge: float | Float64s, *, intercept: bool = True) -> RidgeFit:
        """Minimise |y - x W - b|^2 + lambda |W|^2 with lambda = `ridge` (one, or [groups]) times the mean
        variance of x. With no rows at all the map is zero."""

    def errors_on(self, check: Self, *, intercept: bool = True) -> Callable[[float], Float64s]:
        """What gives `check.residual` [groups] of the solution of these equations for a penalty."""

    def diagnose(self, fit: RidgeFit, *, intercept: bool = True) -> Diagnosis:
        """How well a fit to these rows is determined."""


Equations = TypeVar("Equations", bound=LeastSquares)


def best_fit(
    train: Equations, check: Equations, *, intercept: bool = True, each: Each = in_turn
) -> RidgeFit | None:
    """Choose each group's penalty on rows that the fit does not see, then fit to all rows.

    Args:
        train: rows to fit to.
        check: rows to judge the penalties on; they are fitted to in the end, too.
        intercept: whether a bias is fitted.
        each: tries penalties, perhaps a few that turn out not to be needed.

    Returns:
        The fit, zero in groups where the penalty gives no less error on `check` than no correction at all;
        None where that is so in all of them.
    """
    chosen, errors = _chosen_penalties(train.errors_on(check, intercept=intercept), each)
    useful = errors < 1
    if not useful.any():
        return None
    fit: RidgeFit = train.merged(check).solve(chosen, intercept=intercept)
    if useful.all():
        return fit
    weight, bias = fit.weight * useful[:, None, None], fit.bias * useful[:, None]
    return RidgeFit(weight, bias, fit.explained * useful, fit.penalty)


def _chosen_penalties(error_of: Callable[[float], Float64s], each: Each) -> tuple[Float64s, Float64s]:
    """[groups] penalties, and the errors of fits with them.

    From the largest on they are lowered as long as the error falls; of those, the largest is taken whose
    error is within a thousandth of the least. The error may have a second minimum at small penalties, near
    the first or a per cent below it: to take that one cost whole networks up to two points of accuracy.
    """
    penalties = PENALTIES[::-1]
    errors: list[Float64s] = []
    falling = np.full(1, True)
    for found in each(error_of, penalties):
        found = np.where(np.isfinite(found), found, np.inf)
        if errors:
            falling = falling & ((found < errors[-1]) | np.isinf(errors[-1]))
            found = np.where(falling, found, np.inf)
        if not falling.any():
            break
        errors.append(found)
    seen: Float64s = np.stack(errors)  # [penalties, groups]
    least = seen.min(axis=0)  # below zero by rounding, where all is explained
    first = (seen <= least + _NEAR * np.abs(least)).argmax(axis=0)
    return np.array(penalties)[first], np.take_along_axis(seen, first[None], axis=0)[0]

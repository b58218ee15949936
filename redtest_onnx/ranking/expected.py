"""The redundancy to expect of a network by its depth (RedTest, appendix B)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redtest_onnx.errors import InputError
from redtest_onnx.ranking.candidate import Candidate


@dataclass(frozen=True)
class ExpectedMsrs:
    """A polynomial in the number of layers.

    Attributes:
        coefficients: from the constant term on; one to three of them.
        points: number of candidates it was fitted to.
        depths: the smallest and largest number of layers among them.
        r2: share of the variance it explains; 0 for a constant.
    """

    coefficients: tuple[float, ...]
    points: int
    depths: tuple[int, int]
    r2: float

    def __call__(self, layers: int) -> float:
        """The expected MSRS; beyond the depths of the fit as at their end."""
        depth = min(max(layers, self.depths[0]), self.depths[1])
        return float(sum(c * depth**k for k, c in enumerate(self.coefficients)))

    def __str__(self) -> str:
        names = ("", " L", " L^2")
        terms = [f"{c:.4g}{name}" for c, name in zip(self.coefficients, names, strict=False)]
        return " + ".join(terms).replace("+ -", "- ")


def fit_expected(candidates: Sequence[Candidate]) -> ExpectedMsrs:
    """Fit MSRS over the number of layers by least squares.

    The paper takes a quadratic for families that are too deep and a line for others; here the degree is the
    one with the smallest corrected Akaike criterion, with at least two more depths than it has slopes. All
    candidates of one depth give their mean.

    Raises:
        InputError: no candidate has an MSRS.
    """
    known = [(c.layers, c.msrs) for c in candidates if c.msrs is not None]
    if not known:
        raise InputError("no candidate has an MSRS to fit the expected one to")
    depths, scores = (np.array(column, dtype=np.float64) for column in zip(*known, strict=True))
    degrees = range(max(1, min(3, len(np.unique(depths)) - 1)))
    fits = [np.polynomial.Polynomial.fit(depths, scores, degree).convert() for degree in degrees]
    errors = [float(np.sum((fit(depths) - scores) ** 2)) for fit in fits]
    best = min(degrees, key=lambda k: _criterion(errors[k], len(scores), k + 1))
    spread = float(np.sum((scores - scores.mean()) ** 2))
    return ExpectedMsrs(
        coefficients=tuple(float(c) for c in fits[best].coef),
        points=len(scores),
        depths=(int(depths.min()), int(depths.max())),
        r2=max(0.0, 1 - errors[best] / spread) if spread else 0.0,
    )


def _criterion(error: float, points: int, parameters: int) -> float:
    """Akaike's criterion for small samples, of a least-squares fit."""
    free = points - parameters - 1
    if free <= 0:
        return np.inf if parameters > 1 else 0.0
    fit = points * np.log(max(error / points, 1e-12))
    return float(fit + 2 * parameters + 2 * parameters * (parameters + 1) / free)

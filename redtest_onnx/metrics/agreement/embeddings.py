"""Agreement of embeddings: are they the same vectors, and do they order samples alike?"""

from __future__ import annotations

import numpy as np

from redtest_onnx.arrays import Counted, Float64s, Numbers
from redtest_onnx.metrics.agreement.base import MeasureResult, as_float64
from redtest_onnx.metrics.agreement.intervals import correlation_interval, mean_interval

MEASURE = "the lower of mean cosine and Spearman correlation of pairwise similarities"

_MOST_ROWS = 2048  # all pairs of more would take memory by the gigabyte


class EmbeddingMeasure:
    """Mean cosine of both models' vectors of a sample, and whether similarities of samples stay in order.

    The first tells whether vectors may be mixed with stored ones, the second whether a search finds the same.
    Details: "cosine", "spearman" and "same_neighbour", the share of samples whose most similar other sample
    is the same.
    """

    def observe(self, reference: Numbers, counted: Counted = None) -> None:
        """Nothing has to be known of the reference beforehand."""

    def start(self) -> EmbeddingSum:
        """A sum for one model."""
        return EmbeddingSum()


class EmbeddingSum:
    """Collects the vectors of both models."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Float64s, Float64s]] = []
        self._missing = 0

    def add(self, reference: Numbers, other: Numbers, counted: Counted = None) -> None:
        """Add one batch of both models, [n, ...]; all axes behind the first are one vector."""
        if reference.shape != other.shape:
            self._missing += len(reference)
            return
        a, b = (as_float64(v).reshape(len(v), -1) for v in (reference, other))
        self._pairs.append((a, b))

    def result(self) -> MeasureResult:
        """The agreement over all batches added."""
        if not self._pairs and not self._missing:
            return MeasureResult(None, MEASURE)
        if not self._pairs:
            return MeasureResult(0.0, MEASURE)
        a, b = (np.concatenate(side) for side in zip(*self._pairs, strict=True))
        good = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
        total = len(a) + self._missing
        cosines = _cosines(a[good], b[good])
        cosine = float(cosines.sum()) / total
        one, other = _similarities(a[good][:_MOST_ROWS]), _similarities(b[good][:_MOST_ROWS])
        order = spearman(one, other) if len(one) > 2 else None
        details = {"cosine": cosine, "spearman": order, "same_neighbour": _same_neighbour(one, other)}
        # What has no vector counts as a cosine of 0.
        squares = float(np.square(cosines).sum()) - total * cosine * cosine
        agreement, interval = cosine, mean_interval(cosine, squares / max(total - 1, 1), total)
        if order is not None and order * len(a[good]) / total < cosine:
            agreement, interval = order * len(a[good]) / total, correlation_interval(order, len(one))
        return MeasureResult(min(max(agreement, 0.0), 1.0), MEASURE, details, interval)


def spearman(one: Float64s, other: Float64s) -> float | None:
    """Rank correlation of the entries above the diagonals of two [n, n]; None where one is constant."""
    from scipy.stats import rankdata

    above = np.triu_indices(len(one), 1)
    x, y = (rankdata(side[above]) for side in (one, other))
    if np.array_equal(x, y):
        return 1.0
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return min(float(x @ y) / norm, 1.0) if norm > 0 else None


def _similarities(x: Float64s) -> Float64s:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(norms > 0, norms, 1)
    return np.asarray(unit @ unit.T)


def _cosines(a: Float64s, b: Float64s) -> Float64s:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = np.einsum("ij,ij->i", a, b) / np.where(norms > 0, norms, 1)
    # Equal vectors agree to the last bit, zero ones included.
    return np.where((a == b).all(axis=1), 1.0, np.clip(cosines, -1.0, 1.0))


def _same_neighbour(one: Float64s, other: Float64s) -> float | None:
    if len(one) < 3:
        return None
    nearest = []
    for side in (one, other):
        apart = side.copy()
        np.fill_diagonal(apart, -np.inf)
        nearest.append(apart.argmax(axis=1))
    return float(np.mean(nearest[0] == nearest[1]))

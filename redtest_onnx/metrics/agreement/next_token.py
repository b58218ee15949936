"""Agreement of decoders: their distributions of the next token."""

from __future__ import annotations

from typing import Literal

import numpy as np

from redtest_onnx.arrays import Counted, Float64s, Numbers
from redtest_onnx.metrics.agreement.base import MeasureResult, as_float64
from redtest_onnx.metrics.agreement.classes import top_class
from redtest_onnx.metrics.agreement.intervals import share_interval

MEASURE = "same top token"

Scale = Literal["logits", "probabilities"]


class NextTokenMeasure:
    """Share of positions with the same most likely token; details: mean Kullback-Leibler divergence in nats.

    Args:
        scale: whether scores are "logits" (of any offset, log-probabilities included) or "probabilities".
    """

    def __init__(self, scale: Scale = "logits") -> None:
        self._scale = scale

    def observe(self, reference: Numbers, counted: Counted = None) -> None:
        """Nothing has to be known of the reference beforehand."""

    def start(self) -> NextTokenSum:
        """A sum for one model."""
        return NextTokenSum(self._scale)


class NextTokenSum:
    """Adds up one model."""

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        self._same = self._positions = self._compared = self._samples = 0
        self._divergence = 0.0

    def add(self, reference: Numbers, other: Numbers, counted: Counted = None) -> None:
        """Add one batch of both models, [n, ..., tokens]."""
        shape = reference.shape[:-1]
        use = np.ones(shape, dtype=np.bool_)
        if counted is not None and counted.shape == shape[: counted.ndim]:
            use &= counted.reshape(*counted.shape, *(1,) * (len(shape) - counted.ndim))
        self._positions += int(use.sum())
        self._samples += len(reference)
        if reference.shape != other.shape:
            return
        a, b = reference[use], other[use]
        (top_a, good_a), (top_b, good_b) = top_class(a), top_class(b)
        good = good_a & good_b
        self._same += int(((top_a == top_b) & good).sum())
        for k in np.array_split(np.flatnonzero(good), max(1, a.size >> 22)):
            p, q = log_probabilities(a[k], self._scale), log_probabilities(b[k], self._scale)
            with np.errstate(invalid="ignore"):
                terms = np.where(np.isneginf(p), 0.0, np.exp(p) * (p - q))
            self._divergence += float(terms.sum())
            self._compared += len(k)

    def result(self) -> MeasureResult:
        """The agreement over all batches added."""
        if not self._positions:
            return MeasureResult(None, MEASURE)
        same = self._same / self._positions
        finite = self._compared and np.isfinite(self._divergence)
        # Rounding can leave the divergence of equal distributions below 0.
        divergence = max(self._divergence, 0.0) / self._compared if finite else None
        details = {"top_class": same, "kl_nats": divergence}
        return MeasureResult(same, MEASURE, details, share_interval(same, self._samples))


def log_probabilities(scores: Numbers, scale: Scale) -> Float64s:
    """[..., tokens] float64 logarithms of a softmax over the last axis, or of probabilities as they are."""
    x = as_float64(scores)
    if scale == "probabilities":
        return np.asarray(np.log(np.maximum(x, 1e-12)))
    shifted = x - x.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))

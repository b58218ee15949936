"""Agreement of class scores: per sample, per position or pixel, per token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from redtest_onnx.metrics.agreement.base import Counted, MeasureResult, Values
from redtest_onnx.metrics.agreement.values import ValuesMeasure, ValuesSum

MEASURE = "same top class"

_FEWEST = 4  # answers of one class that are no coincidence any more


class ClassMeasure:
    """Share of answers whose largest score is at the same class.

    Where the reference gives one and the same class throughout, that share tells models apart no longer; the
    scores are then compared as values.
    """

    def __init__(self) -> None:
        self._values = ValuesMeasure()
        self._seen: set[int] = set()
        self._answers = 0

    def observe(self, reference: Values, counted: Counted = None) -> None:
        """Show a batch [n, ..., classes] of the reference."""
        self._values.observe(reference, counted)
        found, valid = top_class(reference)
        valid &= _positions(found.shape, counted)
        self._answers += int(valid.sum())
        if len(self._seen) < 2:
            self._seen.update(np.unique(found[valid])[:2].tolist())

    @property
    def constant(self) -> bool:
        """Whether the reference has one answer for everything."""
        return len(self._seen) == 1 and self._answers >= _FEWEST

    def start(self) -> ClassSum:
        """A sum for one model."""
        return ClassSum(self._values.start() if self.constant else None)


class ClassSum:
    """Adds up one model.

    Args:
        values: compares the scores as values instead; None where answers are compared.
    """

    def __init__(self, values: ValuesSum | None) -> None:
        self._values = values
        self._same = self._answers = 0

    def add(self, reference: Values, other: Values, counted: Counted = None) -> None:
        """Add one batch of both models, [n, ..., classes]."""
        if self._values is not None:
            self._values.add(reference, other, counted)
        a, valid = top_class(reference)
        use = _positions(a.shape, counted)
        self._answers += int(use.sum())
        if reference.shape[:-1] != other.shape[:-1]:
            return
        b, other_valid = top_class(other)
        self._same += int(((a == b) & valid & other_valid & use).sum())

    def result(self) -> MeasureResult:
        """The agreement over all batches added."""
        if not self._answers:
            return MeasureResult(None, MEASURE)
        same = self._same / self._answers
        if self._values is None:
            return MeasureResult(same, MEASURE, {"top_class": same})
        result = self._values.result()
        words = f"{result.measure} of the scores (the original gives one class for everything)"
        return replace(result, measure=words, details={**result.details, "top_class": same})


def top_class(scores: Values) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """[n, ...] place of the largest score, and whether no score is NaN; a NaN answers nothing."""
    valid = ~np.isnan(scores).any(axis=-1) if scores.dtype.kind == "f" else np.ones(scores.shape[:-1], bool)
    return scores.argmax(axis=-1).astype(np.int64), np.asarray(valid)


def _positions(shape: tuple[int, ...], counted: Counted) -> npt.NDArray[np.bool_]:
    """[n, ...] answers that count."""
    if counted is None or counted.shape != shape[: counted.ndim]:
        return np.ones(shape, dtype=np.bool_)
    return np.broadcast_to(counted.reshape(*counted.shape, *(1,) * (len(shape) - counted.ndim)), shape)

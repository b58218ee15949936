"""Agreement of class scores: per sample, per position or pixel, per token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Counted, Numbers
from redtest_onnx.metrics.agreement.base import MeasureResult
from redtest_onnx.metrics.agreement.intervals import share_interval
from redtest_onnx.metrics.agreement.values import ValuesMeasure, ValuesSum

MEASURE = "same top class"

_FEWEST = 4  # answers of one class that are no coincidence any more
_DOMINANT = (
    0.95  # share of answers of one class beyond which always to give that class would pass for agreement
)


class ClassMeasure:
    """Share of answers whose largest score is at the same class.

    Where the reference gives one and the same class nearly throughout, that share no longer tells models
    apart: an unrelated one that always says so agrees as well. The scores are then compared as values.
    """

    def __init__(self) -> None:
        self._values = ValuesMeasure()
        self._seen: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def observe(self, reference: Numbers, counted: Counted = None) -> None:
        """Show a batch [n, ..., classes] of the reference."""
        self._values.observe(reference, counted)
        found, valid = top_class(reference)
        valid &= _positions(found.shape, counted)
        seen = np.bincount(found[valid], minlength=len(self._seen))
        seen[: len(self._seen)] += self._seen
        self._seen = seen

    @property
    def commonest(self) -> float:
        """Share of the class that the reference gives most often; 0 of too few answers to tell."""
        answers = int(self._seen.sum())
        return float(self._seen.max()) / answers if answers >= _FEWEST else 0.0

    def start(self) -> ClassSum:
        """A sum for one model."""
        common = self.commonest
        return ClassSum(self._values.start() if common >= _DOMINANT else None, common)


class ClassSum:
    """Adds up one model.

    Args:
        values: compares the scores as values instead; None where answers are compared.
        common: share of the reference's commonest class.
    """

    def __init__(self, values: ValuesSum | None, common: float = 0.0) -> None:
        self._values, self._common = values, common
        self._same = self._answers = self._samples = 0

    def add(self, reference: Numbers, other: Numbers, counted: Counted = None) -> None:
        """Add one batch of both models, [n, ..., classes]."""
        if self._values is not None:
            self._values.add(reference, other, counted)
        a, valid = top_class(reference)
        use = _positions(a.shape, counted)
        self._answers += int(use.sum())
        self._samples += len(reference)
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
            return MeasureResult(same, MEASURE, {"top_class": same}, share_interval(same, self._samples))
        result = self._values.result()
        # Never "100%" of answers that are not all of one class.
        most = (
            "everything" if self._common == 1 else f"{np.floor(self._common * 1000) / 10:.1f}% of its answers"
        )
        words = f"{result.measure} of the scores (the original gives one class for {most})"
        return replace(result, measure=words, details={**result.details, "top_class": same})


def top_class(scores: Numbers) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """[n, ...] place of the largest score, and whether no score is NaN; a NaN answers nothing."""
    valid = ~np.isnan(scores).any(axis=-1) if scores.dtype.kind == "f" else np.ones(scores.shape[:-1], bool)
    return scores.argmax(axis=-1).astype(np.int64), np.asarray(valid)


def _positions(shape: tuple[int, ...], counted: Counted) -> npt.NDArray[np.bool_]:
    """[n, ...] answers that count."""
    if counted is None or counted.shape != shape[: counted.ndim]:
        return np.ones(shape, dtype=np.bool_)
    return np.broadcast_to(counted.reshape(*counted.shape, *(1,) * (len(shape) - counted.ndim)), shape)

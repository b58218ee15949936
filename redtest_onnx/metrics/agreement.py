"""How well the outputs of two models agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Agreement:
    """Two models on the same samples.

    Attributes:
        top1: share of samples (of positions, for sequences) whose largest score is at the same place in the
            first output; None for outputs without scores.
        cosine: mean cosine of the angle between the two models' outputs for a sample.
        relative_l2: norm of all differences over the norm of the reference's outputs.
    """

    top1: float | None
    cosine: float
    relative_l2: float


class AgreementSum:
    """Adds up the agreement of two models over batches, in float64.

    Values that are not finite make cosine and distance NaN.
    """

    def __init__(self) -> None:
        self._same = self._scored = self._samples = 0
        self._cosine = self._squared = self._difference = 0.0

    def add(
        self, reference: Sequence[npt.NDArray[np.generic]], other: Sequence[npt.NDArray[np.generic]]
    ) -> None:
        """Add one batch: the outputs of both models, each [n, ...] with samples first, in the same order."""
        if not reference:
            return
        a, b = _rows(reference), _rows(other)
        with np.errstate(invalid="ignore", over="ignore"):
            norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            cosines = np.einsum("ij,ij->i", a, b) / np.where(norms > 0, norms, 1)
            # Two silent models agree; the quotient knows no answer for them.
            self._cosine += float(np.where(norms > 0, cosines, np.all(a == b, axis=1)).sum())
            self._squared += float(np.square(a).sum())
            self._difference += float(np.square(a - b).sum())
        self._samples += len(a)
        scores, others = reference[0], other[0]
        if scores.ndim >= 2 and scores.shape[-1] > 1:
            same = scores.argmax(-1) == others.argmax(-1)
            self._same += int(same.sum())
            self._scored += same.size

    def result(self) -> Agreement:
        """The agreement over all batches added; NaN without outputs to compare."""
        if not self._samples:
            return Agreement(None, float("nan"), float("nan"))
        distance = np.sqrt(self._difference)
        norm = np.sqrt(self._squared)
        relative = distance / norm if norm > 0 else (0.0 if distance == 0 else np.inf)
        top1 = self._same / self._scored if self._scored else None
        return Agreement(top1, self._cosine / self._samples, float(relative))


def _rows(outputs: Sequence[npt.NDArray[np.generic]]) -> npt.NDArray[np.float64]:
    """All outputs of a sample in one row, [n, total]; outputs without a row per sample count as one row."""
    samples = len(outputs[0])
    rows = [
        value.astype(np.float64).reshape(samples, -1)
        for value in outputs
        if value.size and value.size % samples == 0
    ]
    return np.concatenate(rows, axis=1)

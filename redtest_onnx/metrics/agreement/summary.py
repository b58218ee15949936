"""Distance of all outputs of two models together, and the agreement of each one by its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from redtest_onnx.metrics.agreement.intervals import Interval


@dataclass(frozen=True)
class OutputAgreement:
    """One output of two models.

    Attributes:
        name: of the output.
        kind: what it is, see `redtest_onnx.runtime.outputs.kinds`.
        axis: of the classes; None where there are none.
        measure: what `agreement` is, in words.
        agreement: 1 for equal models; None if nothing could be compared.
        steers: whether it counts in the verdict.
        tensors: what was compared in its place, where that was not the output itself.
        details: other figures by name.
        note: why it was not judged, or judged otherwise; None if there is nothing to say.
        interval: in which the agreement on all data lies by 95 %, for all that the samples tell; None where
            that is unknown.
    """

    name: str
    kind: str
    axis: int | None
    measure: str
    agreement: float | None
    steers: bool = True
    tensors: tuple[str, ...] = ()
    details: Mapping[str, float | None] = field(default_factory=dict)
    note: str | None = None
    interval: Interval | None = None


@dataclass(frozen=True)
class Agreement:
    """Two models on the same samples.

    Attributes:
        top1: share of samples (of positions, for sequences and images) whose top class is the same, in the
            first output that holds class scores; None without one.
        cosine: mean cosine of the angle between the two models' numbers for a sample.
        relative_l2: norm of all differences over the norm of the reference's numbers.
        outputs: each output, judged by its kind.
    """

    top1: float | None
    cosine: float
    relative_l2: float
    outputs: tuple[OutputAgreement, ...] = ()

    @property
    def value(self) -> float | None:
        """The verdict: the agreement of the output that agrees least; None if none could be judged."""
        return None if self._worst is None else self._worst.agreement

    @property
    def interval(self) -> Interval | None:
        """In which the verdict on all data lies by 95 %; None where that is unknown."""
        return None if self._worst is None else self._worst.interval

    @property
    def _worst(self) -> OutputAgreement | None:
        found = [part for part in self.outputs if part.steers and part.agreement is not None]
        return min(found, key=lambda part: part.agreement or 0.0, default=None)


@dataclass(frozen=True)
class Distance:
    """How far two models' numbers are apart.

    Attributes:
        cosine: mean cosine of the angle between both models' numbers for a sample; NaN without numbers.
        relative_l2: norm of all differences over the norm of the reference's numbers; likewise.
    """

    cosine: float
    relative_l2: float


class DistanceSum:
    """Adds up the distance of two models over batches, in float64.

    A sample with a value that is not finite has a cosine of 0; NaN makes the relative distance NaN, infinity
    infinite.
    """

    def __init__(self) -> None:
        self._samples = 0
        self._cosine = self._squared = self._difference = 0.0

    def add(
        self, reference: Sequence[npt.NDArray[np.generic]], other: Sequence[npt.NDArray[np.generic]]
    ) -> None:
        """Add one batch: the tensors of both models, each [n, ...] with samples first, in the same order.

        Tensors that both models give in different sizes make the distance NaN.
        """
        if not reference:
            return
        samples = max(map(len, reference))
        pairs = [(a, b) for a, b in zip(reference, other, strict=True) if a.size and a.size % samples == 0]
        if any(a.shape != b.shape for a, b in pairs):
            self._samples, self._difference = self._samples + samples, float("nan")
            return
        if not pairs:
            return
        a, b = (
            np.concatenate([pair[side].astype(np.float64).reshape(samples, -1) for pair in pairs], axis=1)
            for side in (0, 1)
        )
        with np.errstate(invalid="ignore", over="ignore"):
            norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            cosines = np.einsum("ij,ij->i", a, b) / np.where(norms > 0, norms, 1)
            # Two silent models agree; the quotient knows no answer for them.
            self._cosine += float(np.where(norms > 0, cosines, np.all(a == b, axis=1)).sum())
            self._squared += float(np.square(a).sum())
            self._difference += float(np.square(a - b).sum())
        self._samples += samples

    def result(self) -> Distance:
        """The distance over all batches added."""
        if not self._samples:
            return Distance(float("nan"), float("nan"))
        distance = np.sqrt(self._difference)
        norm = np.sqrt(self._squared)
        relative = distance / norm if norm > 0 else (0.0 if distance == 0 else np.inf)
        if np.isnan(distance):
            relative = np.nan
        return Distance(self._cosine / self._samples, float(relative))

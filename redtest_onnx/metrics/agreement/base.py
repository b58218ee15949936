"""What all measures of agreement share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from redtest_onnx.arrays import Counted, Float64s, Numbers
from redtest_onnx.metrics.agreement.intervals import Interval


@dataclass(frozen=True)
class MeasureResult:
    """Agreement of two models at one tensor.

    Attributes:
        agreement: 1 for equal models, about 0 (class scores: chance) for unrelated ones; None if nothing was
            compared.
        measure: what the number is, in words.
        details: other figures by name.
        interval: in which the agreement on all data lies by 95 %, for all that these samples tell; None where
            that is unknown.
    """

    agreement: float | None
    measure: str
    details: Mapping[str, float | None] = field(default_factory=dict)
    interval: Interval | None = None


class MeasureSum(Protocol):
    """Adds up the agreement of one model with the reference over batches, in float64."""

    def add(self, reference: Numbers, other: Numbers, counted: Counted = None) -> None:
        """Add one batch of both models: [n, ...] with samples first, in the same order."""

    def result(self) -> MeasureResult:
        """The agreement over all batches added."""


class Measure(Protocol):
    """A measure that has seen the reference's values."""

    def observe(self, reference: Numbers, counted: Counted = None) -> None:
        """Show a batch of the reference, once each and before any comparison."""

    def start(self) -> MeasureSum:
        """A sum for one model."""


def as_float64(values: Numbers) -> Float64s:
    """The values as float64; those that are already are not copied."""
    return values.astype(np.float64, copy=False)

"""Agreement of what is no number to be near to: labels, indices, strings, truth values, and lists of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from redtest_onnx.arrays import Counted
from redtest_onnx.metrics.agreement.base import MeasureResult, MeasureSum
from redtest_onnx.metrics.agreement.intervals import share_interval
from redtest_onnx.metrics.agreement.values import ValuesMeasure

MEASURE = "equal elements"


class ElementMeasure:
    """Share of elements that are equal; what one side lacks is not.

    Lists of floating-point arrays, which come as one array, are compared as values.
    """

    def __init__(self) -> None:
        self._values: ValuesMeasure | None = None

    def observe(self, reference: Any, counted: Counted = None) -> None:
        """Show a batch of the reference."""
        if isinstance(reference, np.ndarray) and reference.dtype.kind == "f":
            self._values = self._values or ValuesMeasure()
            self._values.observe(reference, counted)

    def start(self) -> MeasureSum:
        """A sum for one model."""
        return ElementSum() if self._values is None else self._values.start()


class ElementSum:
    """Adds up one model."""

    def __init__(self) -> None:
        self._equal = self._elements = self._samples = 0

    def add(self, reference: Any, other: Any, counted: Counted = None) -> None:
        """Add one batch of both models: arrays, or lists and tables of them."""
        self._samples += len(reference) if getattr(reference, "ndim", 0) else 1
        same_sizes = getattr(reference, "shape", None) == getattr(other, "shape", ())
        if counted is not None and same_sizes and counted.shape == reference.shape[: counted.ndim]:
            reference, other = reference[counted], other[counted]
        equal, elements = _count(reference, other)
        self._equal += equal
        self._elements += elements

    def result(self) -> MeasureResult:
        """The agreement over all batches added."""
        if not self._elements:
            return MeasureResult(None, MEASURE)
        share = self._equal / self._elements
        return MeasureResult(share, MEASURE, {"equal": share}, share_interval(share, self._samples))


def _count(a: Any, b: Any) -> tuple[int, int]:
    """How many elements are equal, and how many there are."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if a.shape != b.shape:
            return 0, max(a.size, b.size, 1)
        return int(np.sum(a == b)), a.size
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        keys = a.keys() | b.keys()
        parts = [_count(a.get(key), b.get(key)) for key in keys]
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        longest = max(len(a), len(b))
        parts = [_count(*(side[k] if k < len(side) else None for side in (a, b))) for k in range(longest)]
    else:
        return int(type(a) is type(b) and bool(a == b)), 1
    return sum(equal for equal, _ in parts), sum(elements for _, elements in parts)

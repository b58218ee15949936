"""Agreement of values: regression, boxes, masks, sound, hidden states."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Counted, Float64s, Numbers
from redtest_onnx.metrics.agreement.base import MeasureResult, as_float64
from redtest_onnx.metrics.agreement.intervals import Interval, mean_interval

Weights = npt.NDArray[np.bool_]

MEASURE = "1 - relative squared error"

_CONSTANT = 1e-10  # a variance below this share of the mean square is rounding
_WORST = 1e6  # an error beyond this share says no more


class ValuesMeasure:
    """1 - relative squared error, per sample.

    The squared error of a sample is taken relative to the mean squared distance of samples from the
    reference's mean: the coefficient of determination. What only ever guesses the mean scores 0, as does an
    unrelated model; a sample with NaN scores 0. Values that do not vary are taken relative to their square.

    The mean is one per element where all samples have one shape and count in full, else one per entry of the
    last axis.
    """

    def __init__(self) -> None:
        self._elements: Float64s | None = None  # sums per element, about the first sample
        self._channels: Float64s | None = None  # sums per entry of the last axis, likewise
        self._first: Float64s | None = None
        self._level: Float64s | None = None
        self._positions: Float64s | None = None  # values per entry of the last axis
        self._samples = self._finite = self._seen = 0
        self._squares = self._energy = 0.0
        self._even = True

    def observe(self, reference: Numbers, counted: Counted = None) -> None:
        """Show a batch [n, ...] of the reference."""
        if not len(reference):
            return
        self._seen += len(reference)
        x = _rows(reference)
        weight = _weights(x, counted)
        # What is masked by infinity has no spread; the rest of its sample has.
        weight = weight & np.isfinite(x)
        good = weight.any(axis=tuple(range(1, x.ndim)))
        if not good.any():
            return
        weight = weight[good]
        x = np.where(weight, x[good], 0.0)
        if self._first is None:
            self._first = x[0].copy()
            counts = weight[0].reshape(-1, x.shape[-1]).sum(axis=0)
            self._level = x[0].reshape(-1, x.shape[-1]).sum(axis=0) / np.maximum(counts, 1)
        assert self._level is not None
        if x.shape[1:] != self._first.shape or not weight.all():
            self._even = False
        if x.shape[-1] != len(self._level):
            return  # the last axis is no axis of channels: the first shape tells the level
        moved = (x - self._level) * weight
        sums = moved.reshape(-1, x.shape[-1])
        self._channels = sums.sum(axis=0) + (0 if self._channels is None else self._channels)
        if self._even:
            elements = (x - self._first).sum(axis=0)
            self._elements = elements + (0 if self._elements is None else self._elements)
        self._samples += len(x)
        positions = weight.reshape(-1, x.shape[-1]).sum(axis=0).astype(np.float64)
        self._positions = positions + (0 if self._positions is None else self._positions)
        self._finite += int(weight.sum())
        self._squares += float(np.square(moved).sum())
        self._energy += float(np.square(x * weight).sum())

    def start(self) -> ValuesSum:
        """A sum for one model."""
        first, level, channels, positions = self._first, self._level, self._channels, self._positions
        if first is None or level is None or channels is None or positions is None or not self._finite:
            return ValuesSum(0.0, self._seen)
        above = channels / np.maximum(positions, 1)
        # Squares about the level, less those of the mean about it.
        about_channels = self._squares - float((positions * np.square(above)).sum())
        spread, centre = about_channels, level + above
        if self._even and self._elements is not None:
            between = first + self._elements / self._samples - centre
            centre = between + centre
            spread = about_channels - self._samples * float(np.square(between).sum())
        if self._samples < 2 or spread <= _CONSTANT * max(self._energy, 1e-300):
            return ValuesSum(self._energy / self._finite, self._seen, np.zeros_like(centre))
        return ValuesSum(spread / self._finite, self._seen, centre)


class ValuesSum:
    """Adds up one model.

    Args:
        variance: mean squared distance of the reference's elements from their mean.
        expected: number of samples that there are.
        centre: that mean, per element or per entry of the last axis; None where it is unknown.
    """

    def __init__(self, variance: float, expected: int, centre: Float64s | None = None) -> None:
        self._variance, self._expected, self._centre = variance, expected, centre
        self._samples = 0
        self._score = self._error = self._scale = self._largest = 0.0
        self._moments = np.zeros(3)  # sums of r^2, r q and q^2, see `_interval`
        self._finite = True

    def add(self, reference: Numbers, other: Numbers, counted: Counted = None) -> None:
        """Add one batch of both models, [n, ...]."""
        self._samples += len(reference)
        if reference.shape != other.shape:
            self._finite = False
            return  # nothing of it agrees
        a, b = _rows(reference), _rows(other)
        weight = _weights(a, counted) & ~((a == b) & np.isinf(a))
        axes = tuple(range(1, a.ndim))
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.where(weight, a - b, 0.0)
            error = np.square(difference).sum(axis=axes)
            scale = self._variance * weight.sum(axis=axes)
            # Values that are all zero differ by all or by nothing.
            relative = np.divide(error, scale, out=np.where(error == 0, 0.0, _WORST), where=scale > 0)
        good = np.isfinite(error)
        self._finite &= bool(good.all())
        relative = np.where(good, np.minimum(relative, _WORST), 1.0)
        self._score += float((1 - relative).sum())
        own = np.where(good, self._own_spread(a, weight, scale), 1.0)
        self._moments += relative @ relative, relative @ own, own @ own
        self._error += float(error[good].sum())
        self._scale += float(scale[good].sum())
        if good.any():
            self._largest = max(self._largest, float(np.abs(difference[good]).max(initial=0.0)))

    def most(self) -> float:
        """The agreement that would be reached if all samples to come agreed."""
        left = max(self._expected - self._samples, 0)
        return min(max((self._score + left) / max(self._samples + left, 1), 0.0), 1.0)

    def result(self) -> MeasureResult:
        """The agreement over all batches added."""
        if not self._samples:
            return MeasureResult(None, MEASURE)
        details: dict[str, float | None] = {
            "relative_error": self._error / self._scale if self._scale > 0 and self._finite else None,
            "largest_difference": self._largest if self._finite else None,
        }
        agreement = min(max(self._score / self._samples, 0.0), 1.0)
        return MeasureResult(agreement, MEASURE, details, self._interval())

    def _own_spread(self, a: Float64s, weight: Weights, scale: Float64s) -> Float64s:
        """[n] squared distance of each sample from the reference's mean, relative to the average one."""
        if self._centre is None or self._centre.shape not in (a.shape[1:], a.shape[-1:]):
            return np.ones(len(a))
        centre = np.broadcast_to(self._centre, a.shape[1:]).reshape(-1)
        with np.errstate(invalid="ignore", over="ignore"):
            rows = a.reshape(len(a), -1)
            if weight.all():  # products need no array of differences
                own = np.einsum("ij,ij->i", rows, rows) - 2 * (rows @ centre) + centre @ centre
            else:
                apart = np.where(weight.reshape(rows.shape), rows - centre, 0.0)
                own = np.einsum("ij,ij->i", apart, apart)
            own = np.maximum(own, 0.0)
        known = (scale > 0) & np.isfinite(own)
        relative: Float64s = np.divide(own, scale, out=np.ones(len(a)), where=known)
        return relative

    def _interval(self) -> Interval | None:
        """That of a ratio of two means: errors r and spreads q of the same samples, both with their doubt.

        The ratio's linear part of a sample is r - R q, R being the mean of r; the mean of q is 1.
        """
        ratio = 1 - self._score / self._samples
        squares = self._moments @ (1.0, -2 * ratio, ratio * ratio)
        return mean_interval(1 - ratio, float(squares) / max(self._samples - 1, 1), self._samples)


def _rows(values: Numbers) -> Float64s:
    """[n, ..., channels]; single values get an axis of one channel."""
    x = as_float64(values)
    return x.reshape(len(x), 1) if x.ndim == 1 else x


def _weights(x: Float64s, counted: Counted) -> Weights:
    if counted is None or counted.shape != x.shape[: counted.ndim]:
        return np.ones(x.shape, dtype=np.bool_)
    trailing = counted.reshape(*counted.shape, *(1,) * (x.ndim - counted.ndim))
    return np.broadcast_to(trailing, x.shape)

"""What the linear operators behind inner widths read on the data, as moments and weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from redtest_onnx.arrays import Counted, Float64s, Indices, Values
from redtest_onnx.data.batching import portions
from redtest_onnx.graph.inner_width import InnerWidth
from redtest_onnx.graph.linear_operators import LinearOperator
from redtest_onnx.metrics.elimination import LinearReader, fitted
from redtest_onnx.pruning.repair.operator_models import effective_weight
from redtest_onnx.pruning.repair.operator_rows import operator_rows
from redtest_onnx.pruning.repair.partial_runner import PartialRunner, samples_per_fit
from redtest_onnx.runtime.workbench import Workbench

LARGEST = 2304
"""Rows of a covariance that holds every place of a channel; of larger ones places are put together."""
_ROWS = 20  # per row of a covariance
_RUN_BYTES = 1 << 28  # of tensors and moments in one pass
_PARTS = 4


@dataclass(frozen=True, eq=False)
class WidthReader:
    """An operator that reads an inner width.

    Attributes:
        operator: the operator.
        linear: its moments and weights; places put together where there are many.
        mean: [C * places], or [C] where they are, of what it reads.
    """

    operator: LinearOperator
    linear: LinearReader
    mean: Float64s

    def correction(self, kept: Indices, channels: int) -> tuple[Values, Values]:
        """What brings the target as near as it gets with some channels alone, as a change of the whole.

        Args:
            kept: the channels.
            channels: how many there are.

        Returns:
            [M, C * places] and [M] float32, in the order of the operator's weights.
        """
        whole = self.linear.weight
        changed = np.zeros_like(whole)
        places = len(whole) // channels
        rows = (kept[:, None] * places + np.arange(places)).reshape(-1)
        changed[rows] = fitted(self.linear, kept, channels)
        change, outputs = changed - whole, len(self.operator.scale)
        mean = self.mean
        if change.shape[1] != outputs:
            change = change.reshape(-1, outputs)
            mean = np.repeat(mean, len(change) // len(mean))
        bias = np.zeros(outputs) if self.operator.bias is None else -mean @ change
        return change.T.astype(np.float32), bias.astype(np.float32)


class _Moments:
    """Sums over rows of what one operator reads, and over what it hits.

    Args:
        operator: the operator.
        weight: its weights, as stored.
        channels: of the inner width it reads.
        samples: that will be added.
        rng: chooses positions where there are more than needed.
    """

    def __init__(
        self, operator: LinearOperator, weight: Values, channels: int, samples: int, rng: np.random.Generator
    ) -> None:
        self._operator, self._samples, self._rng = operator, samples, rng
        effective = effective_weight(operator, weight)
        outputs = len(effective)
        self._taps = int(np.prod(operator.geometry.kernel)) if operator.geometry else 1
        size = effective.shape[1] * self._taps
        self._places = size // channels
        # [outputs, C * places] with the places of a channel behind one another.
        rows = effective.reshape(outputs, size).T
        self._together = size > LARGEST
        self._weight = (
            rows.reshape(channels, self._places * outputs) if self._together else np.ascontiguousarray(rows)
        )
        width = len(self._weight)
        self._count = self._hit = 0
        self._x, self._xx = np.zeros(width), np.zeros((width, width))
        self._y, self._yy = np.zeros(outputs), np.zeros(outputs)
        self._shift: Float64s | None = None

    def add(self, x: Values, target: Values, counted: Counted) -> bool:
        """Take in one run; False where shapes don't fit."""
        wanted = max(1, -(-_ROWS * len(self._weight) // self._samples))
        rows = operator_rows(self._operator, x, target, wanted, self._rng, counted)
        if rows is None:
            return False
        for block in rows.blocks:
            a, b = rows.gather(block)
            self._add(a[:, 0], b.reshape(len(b), -1))
        return True

    def _add(self, x: Values, target: Values) -> None:
        """Rows x, kernel elements in front of channels, and what is hit there."""
        a, b = x.astype(np.float64), target.astype(np.float64)
        finite = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
        a, b = a[finite], b[finite]
        if not len(a):
            return
        channels = a.shape[1] // self._taps
        a = a.reshape(len(a), self._taps, channels).swapaxes(1, 2).reshape(len(a), -1)
        self._hit += len(b)
        self._y += b.sum(axis=0)
        self._yy += np.square(b).sum(axis=0)
        if self._together:
            a = a.reshape(len(a), len(self._weight), -1).swapaxes(1, 2).reshape(-1, len(self._weight))
        if self._shift is None:
            self._shift = a.mean(axis=0)
        a -= self._shift
        self._count += len(a)
        self._x += a.sum(axis=0)
        self._xx += a.T @ a

    def reader(self) -> WidthReader | None:
        """What was measured; None where no row was seen or nothing is hit."""
        if not self._count or not self._hit or self._shift is None:
            return None
        near = self._x / self._count
        mean = near + self._shift
        moments = self._xx / self._count - np.outer(near, near)
        if self._operator.bias is None:
            moments += np.outer(mean, mean)  # no bias can make up for what is lost on average
        energy = float((self._yy / self._hit - np.square(self._y / self._hit)).sum())
        if not energy > 0:
            return None
        return WidthReader(self._operator, LinearReader(moments, self._weight, energy), mean)


def width_readers(
    bench: Workbench, widths: Sequence[InnerWidth], indices: Indices
) -> Iterator[tuple[InnerWidth, list[WidthReader]]]:
    """What reads each inner width, in graph order; those of which a reader can't be measured are left out.

    As many are measured in one pass as fit into a quarter of a GiB; none is held once it was handed over.

    Args:
        bench: the model and samples.
        widths: the inner widths, in graph order.
        indices: which of the samples.
    """
    sizes = bench.shapes.sizes
    measurable = [
        width
        for width in widths
        if all(sizes.get(o.output) == sizes.get(o.target) for o in width.consumers)  # no sum that widens them
    ]
    size = max(1, min(samples_per_fit(bench), -(-len(indices) // _PARTS)))
    runner = PartialRunner(bench, indices, size=size)
    samples = max(runner.counts)
    for portion in portions(measurable, lambda width: _held(bench, width, samples), _RUN_BYTES):
        yield from _measured(bench, portion, runner)


def _measured(
    bench: Workbench, widths: Sequence[InnerWidth], runner: PartialRunner
) -> Iterator[tuple[InnerWidth, list[WidthReader]]]:
    """The readers of some inner widths, from one pass."""
    rng, samples = np.random.default_rng(bench.seed), sum(runner.counts)
    moments: dict[str, list[_Moments]] = {}
    for width in widths:
        moments[width.name] = [
            _Moments(operator, _weight(bench, operator), width.channels, samples, rng)
            for operator in width.consumers
        ]
    names = dict.fromkeys(n for width in widths for o in width.consumers for n in (o.input, o.target))
    first = min(operator.node for width in widths for operator in width.producers)
    failed: set[str] = set()
    for run, values in enumerate(runner.values(list(names), advance_to=first)):
        counted = runner.counted(run)
        for width in widths:
            for operator, sums in zip(width.consumers, moments[width.name], strict=True):
                x, target = (runner.counting(values[n], run) for n in (operator.input, operator.target))
                if width.name not in failed and not sums.add(x, target, counted):
                    failed.add(width.name)
    for width in widths:
        readers = [sums.reader() for sums in moments.pop(width.name)]
        if width.name not in failed and None not in readers:
            yield width, [reader for reader in readers if reader is not None]


def _weight(bench: Workbench, operator: LinearOperator) -> Values:
    return bench.model.value(operator.weight_of(bench.model))


def _held(bench: Workbench, width: InnerWidth, samples: int) -> int:
    """Bytes of the tensors and moments of an inner width."""
    sizes, batch = bench.shapes.sizes, bench.resolved.batch or 1
    held = 0
    for operator in width.consumers:
        tensors = (sizes.get(name, ()) for name in (operator.input, operator.target))
        held += sum(4 * prod(shape) // batch for shape in tensors) * samples
        unknowns = operator.unknowns(sizes.get(operator.input, (1, 1)))
        held += 8 * (unknowns if unknowns <= LARGEST else width.channels) ** 2
    return held

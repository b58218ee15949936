"""What the linear operators behind inner widths read on the data, as moments and weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from redtest_onnx.data.batching import Indices
from redtest_onnx.graph.inner_width import InnerWidth
from redtest_onnx.graph.linear_operators import LinearOperator
from redtest_onnx.metrics.elimination import LinearReader, fitted
from redtest_onnx.pruning.repair.equations import operator_rows
from redtest_onnx.pruning.repair.operator_models import effective_weight
from redtest_onnx.pruning.repair.partial_runner import PartialRunner
from redtest_onnx.pruning.repair.positions import Counted
from redtest_onnx.runtime.workbench import Workbench

Float64s = npt.NDArray[np.float64]
Values = npt.NDArray[np.generic]

LARGEST = 2304
"""Rows of a covariance that holds every place of a channel; of larger ones places are put together."""
_ROWS = 20  # per row of a covariance
_RUN_BYTES = 1 << 28  # tensors that one pass hands over at a time
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
        channels = a.shape[1] // self._taps
        a = a.reshape(len(a), self._taps, channels).swapaxes(1, 2).reshape(len(a), -1)
        self._hit += len(b)
        self._y += b.sum(axis=0)
        self._yy += np.square(b).sum(axis=0)
        if self._together:
            a = a.reshape(len(a), len(self._weight), -1).swapaxes(1, 2).reshape(-1, len(self._weight))
        if self._shift is None:
            self._shift = a.mean(axis=0) if len(a) else np.zeros(a.shape[1])
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


@dataclass(frozen=True)
class _Asked:
    """One operator that reads an inner width."""

    width: InnerWidth
    operator: LinearOperator
    moments: _Moments


def width_readers(
    bench: Workbench, widths: Sequence[InnerWidth], indices: Indices
) -> dict[str, list[WidthReader]]:
    """What reads each inner width; those of which a reader can't be measured are left out.

    Args:
        bench: the model and samples.
        widths: the inner widths.
        indices: which of the samples.
    """
    rng, sizes = np.random.default_rng(bench.seed), bench.shapes.sizes
    widths = [
        width
        for width in widths
        if all(sizes.get(o.output) == sizes.get(o.target) for o in width.consumers)  # no sum that widens them
    ]
    asked = [
        _Asked(
            width,
            operator,
            _Moments(
                *(operator, bench.model.value(operator.weight_of(bench.model)), width.channels),
                *(len(indices), rng),
            ),
        )
        for width in widths
        for operator in width.consumers
    ]
    size = max(1, min(bench.samples_per_run, -(-len(indices) // _PARTS)))
    runner = PartialRunner(bench, indices, size=size)
    failed: set[str] = set()
    for portion in _portions(bench, asked, max(runner.counts)):
        names = dict.fromkeys(n for item in portion for n in (item.operator.input, item.operator.target))
        for run, values in enumerate(runner.values(list(names))):
            count, counted = runner.counts[run], runner.counted(run)
            for item in portion:
                x, target = values[item.operator.input][:count], values[item.operator.target][:count]
                if item.width.name not in failed and not item.moments.add(x, target, counted):
                    failed.add(item.width.name)
    found: dict[str, list[WidthReader]] = {width.name: [] for width in widths}
    for item in asked:
        reader = item.moments.reader()
        if reader is None:
            failed.add(item.width.name)
        else:
            found[item.width.name].append(reader)
    return {name: readers for name, readers in found.items() if name not in failed}


def _portions(bench: Workbench, asked: Sequence[_Asked], samples: int) -> Iterator[list[_Asked]]:
    """Operators whose tensors can be held at once."""
    sizes, batch = bench.shapes.sizes, bench.resolved.batch or 1
    portion: list[_Asked] = []
    held = 0
    for item in asked:
        names = item.operator.input, item.operator.target
        size = sum(4 * prod(sizes.get(name, ())) // batch for name in names) * samples
        if portion and held + size > _RUN_BYTES:
            yield portion
            portion, held = [], 0
        portion.append(item)
        held += size
    if portion:
        yield portion

"""Two files of the same network tensor by tensor: where and how much they differ.

For float against int8, two operator sets, two versions of an exporter, two execution providers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import Any, Literal

import numpy as np

from redtest_onnx.arrays import Float64s, Indices
from redtest_onnx.data.batching import batches, portions
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.matching import NumberTensor, TensorMatch, match_tensors, number_tensors
from redtest_onnx.similarity.measure import Progress

DIVERGES_BELOW = 20.0
"""Signal-to-noise ratio in dB below which a tensor counts as diverging: an error of a tenth of its values."""

_SAMPLES, _FEWEST_SAMPLES = 64, 8
_MACS = 5 * 10**11  # of both sides for all samples, where more than the fewest are taken
_BATCH = 16
_HELD = 1 << 28  # bytes of tensors at a time and side
_CHUNK = 1 << 16  # values at a time: their float64 copies stay in the processor's cache


@dataclass(frozen=True)
class TensorDifference:
    """One tensor on both sides.

    Attributes:
        first: its name on the first side.
        second: its name on the second.
        op: the operator that makes it.
        by: whether names or positions matched.
        snr_db: signal-to-noise ratio in dB, the first side being the signal; infinite for equal values, minus
            infinity where sizes differ or one side is not finite.
        cosine: of the angle between both sides' values; NaN where one is zero or not finite.
        largest_error: largest absolute difference; NaN where that is undefined.
        largest_value: largest absolute value on the first side.
    """

    first: str
    second: str
    op: str
    by: Literal["name", "position"]
    snr_db: float
    cosine: float
    largest_error: float
    largest_value: float


@dataclass(frozen=True)
class TensorComparison:
    """All matching tensors, in the order of the first graph.

    Attributes:
        tensors: the differences.
        unmatched: tensors of each side without a partner.
        samples: number of samples.
        diverges_below: signal-to-noise ratio in dB below which a tensor diverges.
    """

    tensors: tuple[TensorDifference, ...]
    unmatched: tuple[tuple[str, ...], tuple[str, ...]]
    samples: int
    diverges_below: float = DIVERGES_BELOW

    @property
    def first_divergent(self) -> TensorDifference | None:
        """The first tensor that diverges; None if none does."""
        return next((item for item in self.tensors if item.snr_db < self.diverges_below), None)

    @property
    def first_different(self) -> TensorDifference | None:
        """The first tensor that differs at all; None if all are equal."""
        return next((item for item in self.tensors if item.snr_db < inf), None)


def compare_tensors(
    first: Workbench,
    second: Workbench,
    indices: Indices | None = None,
    *,
    diverges_below: float = DIVERGES_BELOW,
    progress: Progress | None = None,
) -> TensorComparison:
    """Run two files of the same network side by side and hold their tensors against one another.

    Args:
        first: the reference.
        second: the other file, or the same elsewhere; sample k of its data belongs to sample k of the first.
        indices: which samples; if None, the first 64, or fewer of models so large that this takes minutes.
        diverges_below: signal-to-noise ratio in dB below which a tensor diverges.
        progress: called as work is done.

    Raises:
        InputError: a side doesn't run on its data.
    """
    views, tensors = [], []
    for side in (first, second):
        tensors.append(number_tensors(side.index, side.shapes))
        views.append(side.view.model)
    matches = match_tensors(*tensors)
    chosen = np.arange(_count(first, second), dtype=np.int64) if indices is None else indices
    fixed = first.fixed_batch or second.fixed_batch
    # Each portion is a run over all samples: fewer samples at a time make for fewer of them.
    whole = sum(_bytes(match) for match in matches)
    batch = fixed or max(1, min(_BATCH, _HELD // max(whole, 1)))
    found: list[TensorDifference] = []
    for part in portions(matches, lambda match: _bytes(match) * batch, _HELD):
        found.extend(_differences(part, views, (first, second), chosen, (batch, fixed is not None)))
        if progress:
            progress(len(found), len(matches), "comparing tensors")
    matched = [{m.first.name for m in matches}, {m.second.name for m in matches}]
    left = [
        tuple(t.name for t in side if t.name not in names)
        for side, names in zip(tensors, matched, strict=True)
    ]
    return TensorComparison(tuple(found), (left[0], left[1]), len(chosen), diverges_below)


def _count(first: Workbench, second: Workbench) -> int:
    """How many samples tell enough of the tensors: each of a large model holds millions of values."""
    macs = sum(side.cost.macs or 0 for side in (first, second))
    return min(len(first.data), max(_FEWEST_SAMPLES, min(_SAMPLES, _MACS // max(macs, 1))))


def _bytes(match: TensorMatch) -> int:
    """What a sample of the tensor takes in float32."""
    return 4 * prod(match.first.shape or (1 << 18,))


class _Sums:
    """What is added up of one tensor."""

    def __init__(self) -> None:
        self.signal = self.other = self.noise = self.product = self.error = self.value = 0.0
        self.broken = False

    def add(self, a: Any, b: Any) -> None:
        """Add the values of a run; equal infinities are no difference."""
        if a.shape != b.shape:
            self.broken = True
            return
        one, other = a.reshape(-1), b.reshape(-1)
        for start in range(0, one.size, _CHUNK):
            x, y = (side[start : start + _CHUNK].astype(np.float64) for side in (one, other))
            self._add(x, y)
            if self.broken:
                return

    def _add(self, x: Float64s, y: Float64s) -> None:
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            same = (x == y) | (np.isnan(x) & np.isnan(y))
            use = ~same | np.isfinite(x)
            x, y = x[use], y[use]
            if not (np.isfinite(x).all() and np.isfinite(y).all()):
                self.broken = True
                return
        difference = x - y
        self.signal += float(x @ x)
        self.other += float(y @ y)
        self.product += float(x @ y)
        self.noise += float(difference @ difference)
        self.error = max(self.error, float(np.abs(difference).max(initial=0.0)))
        self.value = max(self.value, float(np.abs(x).max(initial=0.0)))

    def result(self, match: TensorMatch) -> TensorDifference:
        """The figures."""
        norms = np.sqrt(self.signal * self.other)
        cosine = float("nan") if self.broken or norms == 0 else min(self.product / norms, 1.0)
        snr = -inf
        if not self.broken and self.noise == 0:
            snr, cosine = inf, 1.0
        elif not self.broken and self.signal > 0:
            snr = float(10 * np.log10(self.signal / self.noise))
        error = float("nan") if self.broken else self.error
        names = match.first.name, match.second.name
        return TensorDifference(*names, match.first.op, match.by, snr, cosine, error, self.value)


def _differences(
    matches: Sequence[TensorMatch],
    views: Sequence[Model],
    sides: tuple[Workbench, Workbench],
    indices: Indices,
    run: tuple[int, bool],
) -> Iterator[TensorDifference]:
    """The figures of some tensors over all samples; `run` tells samples per run, and if that is fixed."""
    batch, fixed = run
    names = [[m.first.name for m in matches], [m.second.name for m in matches]]
    sessions = [
        Session(expose(view, wanted), side.options, level="basic")
        for view, wanted, side in zip(views, names, sides, strict=True)
    ]
    sums = [_Sums() for _ in matches]
    for chosen, count in batches(indices, batch, fixed=fixed):
        one, other = (s.run(side.data.inputs(chosen)) for s, side in zip(sessions, sides, strict=True))
        for match, total in zip(matches, sums, strict=True):
            pair = (_numbers(one, match.first), _numbers(other, match.second))
            cut = fixed and all(len(v) == len(chosen) for v in pair if v.ndim)
            total.add(*(v[:count] if cut and v.ndim else v for v in pair))
    yield from (total.result(match) for match, total in zip(matches, sums, strict=True))


def _numbers(values: dict[str, Any], tensor: NumberTensor) -> Any:
    """The values of a tensor; quantised integers as the numbers they stand for."""
    found = values[tensor.name]
    if tensor.scale is None:
        return found
    scale, zero = tensor.scale
    return (found.astype(np.float64) - zero) * scale

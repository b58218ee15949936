"""What channels of inner widths cost: squared relative error of the outputs, as `spread` prices layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Indices
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.inner_width import InnerWidth
from redtest_onnx.metrics.elimination import Elimination, eliminate
from redtest_onnx.pruning.criteria.gap_fits import GapFits
from redtest_onnx.pruning.repair.partial_runner import PartialRunner, samples_per_fit
from redtest_onnx.pruning.repair.positions import silenced
from redtest_onnx.pruning.width.moments import WidthReader, width_readers
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Progress

_SAMPLES = 256  # that moments are taken of
_EFFECT_SAMPLES = 64  # that tell what an error does to the outputs
_PARTS = 8
"""An inner width loses channels in so many parts; one of them stays."""


@dataclass(frozen=True, eq=False)
class WidthPrices:
    """One inner width with what its channels cost.

    Attributes:
        width: the inner width.
        elimination: its channels in the order in which they go.
        effect: squared relative error of the outputs per relative squared error at what reads the channels.
    """

    width: InnerWidth
    elimination: Elimination
    effect: float

    @property
    def amounts(self) -> list[int]:
        """Numbers of channels that may go, none first: in eighths of the width."""
        channels = self.width.channels
        counts = {channels * part // _PARTS for part in range(_PARTS)} - {channels}
        return sorted(counts | {0})

    def price(self, removed: int) -> float:
        """The price of taking away so many channels."""
        return self.effect * float(self.elimination.errors[removed])


def width_prices(
    bench: Workbench, widths: Sequence[InnerWidth], progress: Progress | None = None
) -> list[WidthPrices]:
    """The prices of inner widths; those that can't be measured are left out.

    Channels are put in order by what the fits of the operators that read them can't make up. How much such an
    error counts is found by making it: with half of the channels gone and those operators fitted, the rest of
    the model is run.

    Args:
        bench: the model, with its branches inlined, and samples.
        widths: the inner widths.
        progress: called after each.
    """
    indices = bench.splits.fit[:_SAMPLES]
    effects = _Effects(bench, indices[:_EFFECT_SAMPLES])
    found = []
    if progress:
        progress(0, len(widths), "pricing channels")
    for width, readers in width_readers(bench, widths, indices):
        elimination = eliminate([reader.linear for reader in readers], width.channels)
        half = width.channels // 2
        error = float(elimination.errors[half])
        effect = effects(readers, elimination.kept(width.channels - half), width.channels)
        found.append(WidthPrices(width, elimination, effect / error if error > 0 else 0.0))
        if progress:
            progress(len(found), len(widths), "pricing channels")
    return found


class _Effects:
    """What changed operators do to the outputs.

    Args:
        bench: the model and samples.
        indices: which of them.
    """

    def __init__(self, bench: Workbench, indices: Indices) -> None:
        self._bench, self._index = bench, bench.index
        size = max(1, min(samples_per_fit(bench), len(indices)))
        self._runner = PartialRunner(bench, indices, size=size)
        floats = [name for name in self._arrays() if bench.shapes.is_float(name)]
        self._outputs = floats or self._arrays()
        self._reference = [
            {name: self._cut(found[name], run) for name in self._outputs}
            for run, found in enumerate(self._runner.values(self._outputs))
        ]

    def __call__(self, readers: Sequence[WidthReader], kept: Indices, channels: int) -> float:
        """Mean squared relative error of the outputs, of operators fitted to some channels; 1 at most."""
        bench = self._bench
        corrections = [reader.correction(kept, channels) for reader in readers]
        fits = [GapFits(bench.model, r.operator, bench.options, bench.seed) for r in readers]
        names = dict.fromkeys(n for r in readers for n in (r.operator.input, r.operator.target))
        first = min(reader.operator.node for reader in readers)
        errors, sizes = dict.fromkeys(self._outputs, 0.0), dict.fromkeys(self._outputs, 0.0)
        part: Callable[[int, dict[str, Any]], dict[str, Any]] | None = None
        for run, values in enumerate(self._runner.values(list(names), advance_to=first)):
            given = {}
            for reader, fit, correction in zip(readers, fits, corrections, strict=True):
                x, target = values[reader.operator.input], values[reader.operator.target]
                moved = target + fit.output(x, correction).reshape(target.shape)
                given[reader.operator.target] = moved.astype(target.dtype)
            if part is None:
                part = self._runner.part(self._outputs, given)
            found = part(run, given)
            for name in self._outputs:
                theirs = self._reference[run][name]
                mine = self._cut(found[name], run)
                size = self._squares(theirs, run)
                same = mine.shape == theirs.shape
                errors[name] += self._squares(mine - theirs, run) if same else size
                sizes[name] += size
        shares = [errors[name] / max(sizes[name], 1e-30) for name in self._outputs]
        mean = float(np.mean(shares))
        return min(mean, 1.0) if np.isfinite(mean) else 1.0

    def _arrays(self) -> list[str]:
        """The outputs; of a list, a table or something that may be missing what it is made of."""
        found, stack = dict[str, None](), list(reversed(self._index.outputs))
        while stack:
            name = stack.pop()
            node = self._index.nodes[self._index.producer[name]] if name in self._index.producer else None
            if node is not None and ops.qualified(node) in ops.NO_TENSOR:
                stack.extend(read for read in reversed(node.input) if read)
            elif name in self._bench.shapes.sizes:
                found[name] = None
        return list(found)

    def _cut(self, value: Any, run: int) -> npt.NDArray[np.float64]:
        cut = self._runner.counting(value, run) if value.ndim else value
        return np.asarray(cut, np.float64)

    def _squares(self, values: npt.NDArray[np.float64], run: int) -> float:
        return float(np.square(silenced(values, self._runner.counted(run))).sum())

"""The samples of a distillation, and in which order they are learnt from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from redtest_onnx.arrays import Indices
from redtest_onnx.data.batching import batches
from redtest_onnx.data.dataset import Dataset
from redtest_onnx.graph.masks import Mask
from redtest_onnx.training.axes import SampleAxes
from redtest_onnx.training.positions import counted_positions

_STEPS_ALIKE = 8
"""Steps whose samples are drawn together and dealt out by length, where texts are padded to the longest."""


@dataclass(frozen=True)
class DistilSamples:
    """The samples of a distillation.

    Attributes:
        data: where they come from; labels are not used.
        fit: those that are learnt from.
        check: others, on which the loss is told.
        mask: which positions of sequences count; None where all do.
        fixed: samples that a run must have; None for any number.
        axes: of the models.
    """

    data: Dataset
    fit: Indices
    check: Indices
    mask: Mask | None = None
    fixed: int | None = None
    axes: SampleAxes = field(default_factory=SampleAxes)

    def counted(self, feeds: Mapping[str, npt.NDArray[np.generic]]) -> Tensor | None:
        """[n, positions] which positions of a run count; None where all do."""
        return counted_positions(self.mask, feeds, self.axes)

    def by_length(self, rows: Indices, size: int) -> Indices:
        """Rows of `fit` in order of how many of their positions count, as they are where all do.

        Runs of neighbours then hold few positions that don't count.

        Args:
            rows: of `fit`.
            size: samples per run.
        """
        lengths: list[int] = []
        if self.mask is None:
            return rows
        for part, count in batches(rows, size, fixed=self.fixed is not None):
            counted = self.counted(self.data.inputs(self.fit[part]))
            if counted is None:
                return rows
            lengths += counted.sum(1).tolist()[:count]
        return rows[np.argsort(lengths, kind="stable")]

    def drawn(self, rng: np.random.Generator, size: int, steps: int) -> Iterator[Indices]:
        """Rows of `fit` for each step: all before any comes again, of texts those of like lengths together.

        Args:
            rng: draws them.
            size: samples per step.
            steps: how many.
        """
        order = np.empty(0, np.int64)
        while steps > 0:
            number = 1 if self.mask is None else min(_STEPS_ALIKE, steps)
            while len(order) < size * number:
                order = np.concatenate([order, rng.permutation(len(self.fit))])
            drawn, order = order[: size * number], order[size * number :]
            if number > 1:
                drawn = self.by_length(drawn, size).reshape(number, size)[rng.permutation(number)]
            yield from drawn.reshape(number, size)
            steps -= number

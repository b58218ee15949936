"""What the original gives on the calibration samples, each computed once where memory allows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from redtest_onnx.arrays import ArraysByName
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.runtime.session import RunOptions, Session
from redtest_onnx.training.axes import SampleAxes
from redtest_onnx.training.positions import fitted_to, holds_positions


class Teacher:
    """Answers of the original, kept by sample.

    Args:
        original: the model.
        names: tensors that are compared.
        options: device and threads.
        samples: number of samples that may be asked for, mirrored ones counted separately.
        axes: of the model; samples are in front if None.
    """

    def __init__(
        self,
        original: Model,
        names: tuple[str, ...],
        options: RunOptions,
        samples: int,
        axes: SampleAxes | None = None,
    ) -> None:
        self._session = Session(expose(original, names), options, level="all")
        self._names = names
        self._samples, self._limit = samples, options.memory
        self._axes = axes or SampleAxes()
        self._kept: dict[str, dict[int, Tensor]] = {name: {} for name in names}
        self._by_position: set[str] = set()

    def answers(
        self, feeds: ArraysByName, rows: npt.NDArray[np.int64] | None, counted: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Values by name for some samples, which are in front.

        Args:
            feeds: their inputs.
            rows: which samples they are; None for inputs that will not come again.
            counted: [n, positions] which positions count. Samples come padded to other lengths at other
                times: what is kept of sequences is cut or filled up to the length of now.
        """
        if rows is not None and all(int(row) in kept for kept in self._kept.values() for row in rows):
            return {name: self._together(name, rows, counted) for name in self._names}
        given = self._session.run(feeds, self._names)
        found = self._axes.samples_first({name: torch.from_numpy(v) for name, v in given.items()})
        if rows is not None and self._fits(found, len(rows)):
            for name, values in found.items():
                if holds_positions(values, counted):
                    self._by_position.add(name)
                self._kept[name].update(
                    (int(row), value.clone()) for row, value in zip(rows, values, strict=True)
                )
        return found

    def _together(self, name: str, rows: npt.NDArray[np.int64], counted: Tensor | None) -> Tensor:
        values = [self._kept[name][int(row)] for row in rows]
        if counted is not None and name in self._by_position:
            values = [fitted_to(value, counted.shape[1]) for value in values]
        return torch.stack(values)

    def _fits(self, found: Mapping[str, Tensor], count: int) -> bool:
        if not all(len(values) == count for values in found.values()):
            return False
        each = sum(values.nbytes for values in found.values()) / max(count, 1)
        return each * self._samples <= self._limit

"""What a model answered while its layers were measured: that pass is the one that judges it, too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Indices
from redtest_onnx.data.dataset import Feeds
from redtest_onnx.graph.model import Model
from redtest_onnx.runtime.session import RunOptions


class Answers:
    """Outputs of one model, sample by sample.

    They are those of the probe that measures similarities: in all but the last bits what the model itself
    gives, so that only those of two probes are held against each other.

    Args:
        model: whose they are.
        options: how it is run.
        names: its outputs that are kept.
        wanted: the samples that they are kept of.
    """

    def __init__(self, model: Model, options: RunOptions, names: Iterable[str], wanted: Indices) -> None:
        self.model, self.options, self.names = model, options, tuple(names)
        self._wanted = frozenset(map(int, wanted))
        self._rows: dict[int, dict[str, npt.NDArray[np.generic]]] = {}
        self._sizes: dict[str, tuple[int, ...]] = {}
        self._alike = True

    def record(self, indices: Indices, feeds: Feeds, values: Mapping[str, Any]) -> None:
        """Keep what a run returned; `values` may lie in memory that the next run uses."""
        self._alike &= all(
            self._sizes.setdefault(name, array.shape[1:]) == array.shape[1:] for name, array in feeds.items()
        )
        for name in self.names:
            self._alike &= values[name].ndim > 0 and len(values[name]) == len(indices)
        if self._alike:
            for row, index in enumerate(map(int, indices)):
                if index in self._wanted:
                    self._rows[index] = {name: np.array(values[name][row]) for name in self.names}

    @property
    def complete(self) -> bool:
        """Whether all samples were seen, in runs whose inputs were of one size."""
        return self._alike and self._rows.keys() == self._wanted

    def of(self, indices: Indices) -> dict[str, Any]:
        """The outputs of a run with these samples."""
        return {name: np.stack([self._rows[int(k)][name] for k in indices]) for name in self.names}

    def beside(self, model: Model) -> Answers | None:
        """Room for those of a model with the same outputs; None if its outputs are called otherwise."""
        if model.renamed is not None or [o.name for o in model.outputs] != [
            o.name for o in self.model.outputs
        ]:
            return None
        return Answers(model, self.options, self.names, np.array(sorted(self._wanted), np.int64))

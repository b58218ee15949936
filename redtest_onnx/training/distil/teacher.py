"""What the original gives on the calibration samples, each computed once where memory allows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from redtest_onnx.graph.model import Model
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.runtime.session import RunOptions, Session

_KEPT_BYTES = 1 << 30

Feeds = Mapping[str, npt.NDArray[np.generic]]


class Teacher:
    """Answers of the original, kept by sample.

    Args:
        original: the model.
        names: tensors that are compared.
        options: device and threads.
        samples: number of samples that may be asked for, mirrored ones counted separately.
    """

    def __init__(self, original: Model, names: tuple[str, ...], options: RunOptions, samples: int) -> None:
        self._session = Session(expose(original, names), options, level="all")
        self._names = names
        self._samples = samples
        self._kept: dict[str, Tensor] = {}
        self._known = np.zeros(samples, bool)

    def answers(self, feeds: Feeds, rows: npt.NDArray[np.int64] | None) -> dict[str, Tensor]:
        """Values by name for some samples.

        Args:
            feeds: their inputs.
            rows: which samples they are; None for inputs that will not come again.
        """
        if rows is not None and self._kept and self._known[rows].all():
            return {name: values[torch.from_numpy(rows)] for name, values in self._kept.items()}
        found = {name: torch.from_numpy(v) for name, v in self._session.run(feeds, self._names).items()}
        if rows is not None and self._fits(found, len(rows)):
            for name, values in found.items():
                if name not in self._kept:
                    self._kept[name] = torch.empty(self._samples, *values.shape[1:], dtype=values.dtype)
                self._kept[name][torch.from_numpy(rows)] = values
            self._known[rows] = True
        return found

    def _fits(self, found: Mapping[str, Tensor], count: int) -> bool:
        if not all(len(values) == count for values in found.values()):
            return False
        each = sum(values.nbytes for values in found.values()) / max(count, 1)
        return each * self._samples <= _KEPT_BYTES

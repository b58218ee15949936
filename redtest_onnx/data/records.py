"""Samples that come one at a time: each is read when asked for and fitted to the model's inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.data.arrays import fit_array
from redtest_onnx.data.dataset import Chosen, Feeds, check_finite
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.signature import batch_axes

Record = Mapping[str, npt.NDArray[Any]]
"""The values of one sample by input, without the axis of the samples."""


@dataclass(frozen=True)
class RecordData:
    """Samples read one by one.

    Attributes:
        source: what messages call them.
        model: what they are for.
        count: number of samples.
        read: the values of a sample.
        classes: [n]; None without labels.
        preparation: what is done to each sample, in words.
        of_images: whether the samples are images.
    """

    source: str
    model: Model
    count: int
    read: Callable[[int], Record]
    classes: npt.NDArray[np.int64] | None = None
    preparation: str = ""
    of_images: bool = False
    synthetic: bool = False

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self.classes is not None

    def __len__(self) -> int:
        return self.count

    def inputs(self, indices: Chosen) -> Feeds:
        """The chosen samples, put together.

        Raises:
            InputError: a sample can't be read, doesn't fit the model, or has another size than the others.
        """
        records = [self.read(int(k)) for k in indices]
        return {
            name: self._joined(name, axis, [record[name] for record in records], indices)
            for name, axis in batch_axes(self.model).items()
        }

    def labels(self, indices: Chosen) -> npt.NDArray[np.int64] | None:
        """Labels of the chosen samples."""
        return None if self.classes is None else self.classes[np.asarray(indices)]

    def _joined(
        self, name: str, axis: int | None, values: list[npt.NDArray[Any]], indices: Chosen
    ) -> npt.NDArray[Any]:
        spec = next(spec for spec in self.model.inputs if spec.name == name)
        if axis is None:
            return fit_array(np.asarray(values[0]), spec, None, self.source).take([])
        sizes = sorted({tuple(value.shape) for value in values})
        if len(sizes) > 1:
            raise InputError(
                f"its samples have different sizes of {name!r}: {list(sizes[0])} and {list(sizes[-1])}",
                where=self.source,
                hint="pad or crop them to one size, or export the model for a batch of one sample",
            )
        stacked = np.stack(values, axis=axis)
        fitted = fit_array(stacked, spec, axis, self.source).take(range(len(values)))
        check_finite(name, np.moveaxis(fitted, axis, 0), indices, self.source)
        return fitted


def check_names(given: Mapping[str, Any], model: Model, source: str) -> None:
    """Refuse a sample that lacks an input.

    Raises:
        InputError: naming what is missing and what is there.
    """
    wanted = [spec.name for spec in model.inputs]
    if missing := [name for name in wanted if name not in given]:
        raise InputError(
            f"has no {', '.join(map(repr, missing))}; it holds {', '.join(map(str, given)) or 'nothing'}",
            where=source,
            hint=f"name the values like the model's inputs: {', '.join(wanted)}",
        )

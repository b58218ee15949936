"""Samples for a model: what a data set offers, parts of one, and what is refused in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Indices
from redtest_onnx.errors import InputError

Chosen: TypeAlias = Sequence[int] | Indices
Feeds: TypeAlias = dict[str, npt.NDArray[Any]]

_FEWEST = 4  # the unbiased estimator divides by n - 3


@runtime_checkable
class Dataset(Protocol):
    """Samples for a model's inputs, read when asked for."""

    @property
    def source(self) -> str:
        """What messages call it."""

    @property
    def synthetic(self) -> bool:
        """Whether the samples are synthetic (random)."""

    @property
    def labelled(self) -> bool:
        """Whether `labels` knows the right answers."""

    def __len__(self) -> int:
        """Number of samples."""

    def inputs(self, indices: Chosen) -> Feeds:
        """One array per model input for the given samples.

        Raises:
            InputError: a sample can't be read or holds values that are not finite.
        """

    def labels(self, indices: Chosen) -> npt.NDArray[np.int64] | None:
        """Class of each of the given samples, [n]; None without labels."""


@dataclass(frozen=True)
class _View:
    """What a data set made from another has of it.

    Attributes:
        data: the other data set.
    """

    data: Dataset

    @property
    def source(self) -> str:
        """What messages call it."""
        return self.data.source

    @property
    def synthetic(self) -> bool:
        """Whether the samples are synthetic (random)."""
        return self.data.synthetic

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self.data.labelled


@dataclass(frozen=True)
class Subset(_View):
    """Some samples of a data set.

    Attributes:
        data: the data set.
        indices: which of its samples.
    """

    indices: Indices

    def __len__(self) -> int:
        return len(self.indices)

    def inputs(self, indices: Chosen) -> Feeds:
        """One array per model input for the given samples of the subset."""
        return self.data.inputs(self.indices[np.asarray(indices)])

    def labels(self, indices: Chosen) -> npt.NDArray[np.int64] | None:
        """Class of each of the given samples of the subset."""
        return self.data.labels(self.indices[np.asarray(indices)])


@dataclass(frozen=True)
class WithMask(_View):
    """A data set whose user says which input is the mask.

    Attributes:
        data: the data set.
        mask: name of the input that says which positions of a sequence count.
    """

    mask: str

    def __len__(self) -> int:
        return len(self.data)

    def inputs(self, indices: Chosen) -> Feeds:
        """One array per model input for the given samples."""
        return self.data.inputs(indices)

    def labels(self, indices: Chosen) -> npt.NDArray[np.int64] | None:
        """Class of each of the given samples."""
        return self.data.labels(indices)


def keeps_sizes(data: Dataset) -> bool:
    """Whether a sample's arrays have the same sizes whatever samples it is read with; not so of texts."""
    return not getattr(source_of(data), "padded_by_batch", False)


def source_of(data: Dataset) -> Dataset:
    """The data set that others were made from."""
    while isinstance(data, _View):
        data = data.data
    return data


def require_samples(data: Dataset) -> None:
    """Check that there is enough to measure similarity on.

    Raises:
        InputError: fewer than four samples.
    """
    if len(data) < _FEWEST:
        raise InputError(
            f"has {len(data)} sample{'s' * (len(data) != 1)}, at least {_FEWEST} are needed",
            where=data.source,
            hint="give more data; some hundred samples make similarities reliable",
        )


def check_finite(name: str, values: npt.NDArray[Any], indices: Chosen, source: str) -> None:
    """Refuse NaN and infinity in what is about to be fed.

    Raises:
        InputError: naming the first bad sample.
    """
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    bad = int(np.argmin(np.isfinite(values).reshape(len(values), -1).all(axis=1)))
    raise InputError(
        f"{name!r} holds NaN or infinity in sample {int(indices[bad])}",
        where=source,
        hint="clean the data",
    )

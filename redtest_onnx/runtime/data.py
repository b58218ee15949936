"""Where samples come from: arrays, images, or inputs made up from the model's own signature."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import Shape
from redtest_onnx.runtime.batching import Indices
from redtest_onnx.runtime.images import ImageOptions

Chosen: TypeAlias = Sequence[int] | Indices
Feeds: TypeAlias = dict[str, npt.NDArray[Any]]

_FEWEST = 4  # the unbiased estimator divides by n - 3


class Dataset(Protocol):
    """Samples for a model's inputs, read when asked for."""

    @property
    def source(self) -> str:
        """What messages call it."""

    @property
    def synthetic(self) -> bool:
        """Whether the samples are made up."""

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
class Subset:
    """Some samples of a data set.

    Attributes:
        data: the data set.
        indices: which of its samples.
    """

    data: Dataset
    indices: Indices

    @property
    def source(self) -> str:
        """What messages call it."""
        return self.data.source

    @property
    def synthetic(self) -> bool:
        """Whether the samples are made up."""
        return self.data.synthetic

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self.data.labelled

    def __len__(self) -> int:
        return len(self.indices)

    def inputs(self, indices: Chosen) -> Feeds:
        """One array per model input for the given samples of the subset."""
        return self.data.inputs(self.indices[np.asarray(indices)])

    def labels(self, indices: Chosen) -> npt.NDArray[np.int64] | None:
        """Class of each of the given samples of the subset."""
        return self.data.labels(self.indices[np.asarray(indices)])


def open_data(
    path: str | os.PathLike[str] | None,
    model: Model,
    *,
    split: str | None = None,
    images: ImageOptions | None = None,
    shapes: dict[str, Shape] | None = None,
    seed: int = 0,
    count: int = 2560,
) -> Dataset:
    """Open samples for a model.

    Args:
        path: an .npz with arrays named like the model's inputs and perhaps `labels`, plain or per split as
            `SPLIT/NAME`; an .npy for a model with one input; a folder or .zip of images, whose subfolders
            are classes; None for synthetic inputs.
        model: what they are for.
        split: which split of an .npz; `calibration` if there is one, and the plain arrays otherwise.
        images: how images become inputs.
        shapes: sizes for synthetic inputs.
        seed: of synthetic inputs.
        count: number of synthetic samples.

    Raises:
        InputError: nothing there, not a kind of file we know, or it does not fit the model's inputs.
    """
    from redtest_onnx.runtime.arrays import open_npy, open_npz
    from redtest_onnx.runtime.images import ImageOptions, open_images
    from redtest_onnx.runtime.synthetic import Synthetic

    if path is None:
        return Synthetic(model, seed, count, shapes or {})
    path = Path(path)
    if not path.exists():
        raise InputError("no such file or folder", where=str(path), hint="check --data")
    if path.suffix.lower() == ".npz":
        return open_npz(path, model, split)
    if path.suffix.lower() == ".npy":
        return open_npy(path, model)
    if path.is_dir() or path.suffix.lower() == ".zip":
        return open_images(path, model, images or ImageOptions())
    raise InputError(
        f"is no kind of data we know ({path.suffix or 'no suffix'})",
        where=str(path),
        hint="give an .npz, an .npy, or a folder or .zip of images",
    )


def sample_indices(data: Dataset, count: int, seed: int) -> Indices:
    """The first `count` samples of a seeded order, each once."""
    order: Indices = np.random.default_rng(seed).permutation(len(data)).astype(np.int64)
    return order[:count]


def require_samples(data: Dataset) -> None:
    """Check that there is enough to measure similarity on.

    Raises:
        InputError: fewer than four samples.
    """
    if len(data) < _FEWEST:
        raise InputError(
            f"has {len(data)} samples, at least {_FEWEST} are needed",
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

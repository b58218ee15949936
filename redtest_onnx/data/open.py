"""Open samples for a model by path, or make synthetic ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt

from redtest_onnx.data.dataset import Dataset
from redtest_onnx.data.images import ImageOptions
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import Shape

DataLike: TypeAlias = str | os.PathLike[str] | npt.NDArray[Any] | Mapping[str, npt.ArrayLike] | Dataset | None
"""Samples by path, in memory, or none."""


def open_data(
    data: DataLike,
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
        data: an .npz with arrays named like the model's inputs and perhaps `labels`, plain or per split as
            `SPLIT/NAME`; an .npy for a model with one input; a folder or .zip of images, whose subfolders
            are classes; arrays [n, ...] by name of the input, perhaps with `labels`, or one array for a model
            with one input; a `Dataset`, which is returned; None for synthetic inputs.
        model: what they are for.
        split: which split of an .npz; `calibration` if there is one, and the plain arrays otherwise.
        images: how images become inputs.
        shapes: sizes for synthetic inputs.
        seed: of synthetic inputs.
        count: number of synthetic samples.

    Raises:
        InputError: nothing there, not a kind of file we know, or it does not fit the model's inputs.
    """
    from redtest_onnx.data.arrays import open_arrays, open_npy, open_npz
    from redtest_onnx.data.images import ImageOptions, open_images
    from redtest_onnx.data.synthetic import Synthetic

    if data is None:
        return Synthetic(model, seed, count, shapes or {})
    if isinstance(data, Dataset):
        return data
    if not isinstance(data, str | os.PathLike):
        return open_arrays(data, model)
    path = Path(data)
    if not path.exists():
        raise InputError("no such file or folder", where=str(path), hint="check @data")
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

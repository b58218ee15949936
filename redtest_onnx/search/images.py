"""Labelled images to train candidates with, and others to judge them by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.data.arrays import splits
from redtest_onnx.data.dataset import Dataset
from redtest_onnx.data.images import ImageOptions
from redtest_onnx.data.open import open_data
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import FLOAT, Model
from redtest_onnx.search.space import ImageTask

INPUT = "input"
_VALIDATION_SPLITS = ("validation", "valid", "val", "calibration")
_ARRAYS = (".npz", ".npy")
_HELD_OUT = 0.2


@dataclass(frozen=True)
class LabelledImages:
    """Images [n, channels, size, size] float32 with their classes [n] int64."""

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainingData:
    """What a candidate learns from, and what it is judged by.

    Attributes:
        train: to learn from.
        validation: to compare candidates by; never learned from.
        test: to judge the final choice by, never compared by; None where the data has no such split.
    """

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages | None = None

    @property
    def task(self) -> ImageTask:
        """Inputs and classes of a network for this data."""
        _, channels, size, _ = self.train.images.shape
        return ImageTask(channels, size, int(max(self.train.labels.max(), self.validation.labels.max())) + 1)


def open_training_data(path: Path, *, options: ImageOptions | None = None, seed: int = 0) -> TrainingData:
    """Read labelled images to train with.

    Args:
        path: an .npz with `input` [n, channels, size, size] and `labels`, plain or in the splits `train` and
            `validation` (or `calibration`), perhaps `test`; or a folder or .zip of images in class
            subfolders.
        options: how image files become inputs; 32x32 if they give no size.
        seed: of the choice of the fifth that is held out where there are no splits.

    Raises:
        InputError: unreadable, without labels, or not square images.
    """
    found = splits(path) if path.suffix.lower() == ".npz" and path.is_file() else ()
    if "train" in found:
        held_out = next((name for name in _VALIDATION_SPLITS if name in found), None)
        if held_out is None:
            raise InputError(
                "has a split 'train' but none to judge candidates by",
                where=str(path),
                hint=f"add one of {', '.join(_VALIDATION_SPLITS)}",
            )
        test = _read(path, "test", options) if "test" in found else None
        return TrainingData(_read(path, "train", options), _read(path, held_out, options), test)
    whole = _read(path, None, options)
    order = np.random.default_rng(seed).permutation(len(whole.labels))
    cut = int(len(order) * _HELD_OUT)
    if cut < 4:
        raise InputError(f"has {len(order)} images, too few to train with", where=str(path))
    return TrainingData(_part(whole, order[cut:]), _part(whole, order[:cut]))


def _read(path: Path, split: str | None, options: ImageOptions | None) -> LabelledImages:
    options = options or ImageOptions()
    if path.suffix.lower() not in _ARRAYS:
        options = replace(options, size=options.size or (32, 32))
    data: Dataset = open_data(path, _signature(path, options), split=split, images=options)
    indices = np.arange(len(data))
    labels = data.labels(indices)
    if labels is None:
        raise InputError(
            "has no labels to train with", where=data.source, hint="add `labels`, or class subfolders"
        )
    images = data.inputs(indices)[INPUT].astype(np.float32, copy=False)
    if images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise InputError(
            f"holds {list(images.shape)}, the networks take square images [n, channels, size, size]",
            where=data.source,
        )
    return LabelledImages(images, labels)


def _signature(path: Path, options: ImageOptions) -> Model:
    """A model that takes these images, for the readers that fit data to a model's inputs."""
    files = path.suffix.lower() not in _ARRAYS
    sizes: list[int | str] = ["n", 3, *(options.size or (32, 32))] if files else ["n", "c", "h", "w"]
    info = onnx.helper.make_tensor_value_info(INPUT, FLOAT, sizes)
    return Model(onnx.helper.make_model(onnx.helper.make_graph([], "training data", [info], [])))


def _part(images: LabelledImages, indices: npt.NDArray[np.int64]) -> LabelledImages:
    return LabelledImages(images.images[indices], images.labels[indices])

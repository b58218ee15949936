"""Images to train with come from arrays with or without splits, and from image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from redtest_onnx.errors import InputError
from redtest_onnx.search.images import open_training_data
from redtest_onnx.search.space import ImageTask

DIGITS = Path(__file__).parents[2] / "models" / "digits.npz"


def test_splits_are_kept_apart() -> None:
    data = open_training_data(DIGITS)
    assert data.task == ImageTask(channels=1, size=8, classes=10)
    assert data.test is not None
    assert [len(part.labels) for part in (data.train, data.validation, data.test)] == [1000, 397, 400]


def test_plain_arrays_are_split_by_seed(tmp_path: Path) -> None:
    path = tmp_path / "plain.npz"
    images = np.arange(50 * 2 * 4 * 4, dtype=np.float32).reshape(50, 2, 4, 4)
    np.savez(path, input=images, labels=np.arange(50) % 3)
    one, same, other = (open_training_data(path, seed=seed) for seed in (0, 0, 1))
    assert one.task == ImageTask(channels=2, size=4, classes=3)
    assert (len(one.train.labels), len(one.validation.labels), one.test) == (40, 10, None)
    first = {float(image[0, 0, 0]) for part in (one.train, one.validation) for image in part.images}
    assert len(first) == 50
    assert np.array_equal(one.validation.images, same.validation.images)
    assert not np.array_equal(one.validation.images, other.validation.images)


def test_folders_of_images_have_classes(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for k in range(10):
            Image.new("RGB", (9, 7), (k, 0, 0)).save(tmp_path / label / f"{k}.png")
    data = open_training_data(tmp_path)
    assert data.task == ImageTask(channels=3, size=32, classes=2)
    assert len(data.validation.labels) == 4


def test_what_can_not_be_trained_with_is_refused(tmp_path: Path) -> None:
    images = np.zeros((30, 1, 4, 5), np.float32)
    np.savez(tmp_path / "flat.npz", input=images, labels=np.zeros(30, int))
    np.savez(tmp_path / "unlabelled.npz", input=images)
    np.savez(tmp_path / "few.npz", input=images[:3, :, :, :4], labels=np.zeros(3, int))
    np.savez(tmp_path / "train.npz", **{"train/input": images, "train/labels": np.zeros(30, int)})
    for name, why in (
        ("flat", "square images"),
        ("unlabelled", "no labels"),
        ("few", "too few"),
        ("train", "none to judge candidates by"),
    ):
        with pytest.raises(InputError, match=why):
            open_training_data(tmp_path / f"{name}.npz")

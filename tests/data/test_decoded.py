"""Images are decoded once: what is kept, what is decoded anew, and by whom."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from nets import Net
from PIL import Image

import redtest_onnx as rt
from redtest_onnx.data.dataset import Subset
from redtest_onnx.data.decoded import DecodedImages
from redtest_onnx.data.images import ImageData
from redtest_onnx.errors import InputError
from redtest_onnx.runtime.workbench import Workbench

COUNT = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for k in range(COUNT):
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), np.uint8)).save(tmp_path / f"{k:02}.png")
    return tmp_path


def model() -> rt.Model:
    net = Net(x=[None, 3, 6, 6])
    return net.model(net("GlobalAveragePool", net.conv("x", 3, 4), name="y"))


class Watched(DecodedImages):
    """Counts what is decoded, and where."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.by: set[int] = set()

    def ask(self, *numbers: int) -> list[int]:
        def decode(number: int, content: bytes) -> np.ndarray:
            self.seen.append(number)
            self.by.add(threading.get_ident())
            return np.full((2, 2, 1), content[0], np.uint8)

        pixels = self.get(numbers, lambda number: bytes([number]), decode)  # type: ignore[arg-type]
        return [int(image[0, 0, 0]) for image in pixels]


@pytest.mark.parametrize("threads", [1, 3])
def test_each_image_is_decoded_once_and_returned_in_order(threads: int) -> None:
    images = Watched()
    images.threads = threads
    assert images.ask(*range(9, 0, -1)) == [*range(9, 0, -1)]
    assert (threading.get_ident() in images.by) == (threads == 1)
    assert images.ask(3, 3, 11, 1) == [3, 3, 11, 1]
    assert sorted(images.seen) == [*range(1, 10), 11]


def test_what_is_beyond_the_limit_is_decoded_anew() -> None:
    images = Watched()
    images.limit = 2 * 4
    for _ in range(2):
        assert images.ask(5, 6, 7) == [5, 6, 7]
    assert images.seen == [5, 6, 7, 7]
    images.limit = 0
    assert images.ask(8, 8) == [8, 8]
    assert images.ask(8) == [8]
    assert images.seen[4:] == [8, 8]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_image_that_fails_is_named(folder: Path, threads: int) -> None:
    for name in ("03.png", "07.png"):
        (folder / name).write_bytes(b"no png")
    data = rt.open_data(folder, model())
    assert isinstance(data, ImageData)
    data.decoded.threads = threads
    for _ in range(2):
        with pytest.raises(InputError, match=r"03\.png"):
            data.inputs(np.arange(COUNT))


@pytest.mark.parametrize("subset", [False, True])
def test_a_workbench_says_how_much_is_kept_and_by_how_many(folder: Path, subset: bool) -> None:
    data, judged = (rt.open_data(folder, model()) for _ in range(2))
    assert isinstance(data, ImageData)
    assert isinstance(judged, ImageData)
    before = data.inputs(np.arange(COUNT))["x"]
    given = Subset(data, np.arange(1, COUNT)) if subset else data
    memory = 12 * 5 * 6 * 6 * 3
    Workbench(model(), given, rt.RunOptions("cpu", 2, memory=memory), evaluation=judged)
    for side in (data, judged):
        assert side.decoded.threads == 2
        assert side.decoded.limit == memory // 12
        np.testing.assert_array_equal(side.inputs(np.arange(COUNT))["x"], before)
    assert len(judged.decoded._kept) == 5
    np.testing.assert_array_equal(judged.inputs([11, 0, 4])["x"], before[[11, 0, 4]])

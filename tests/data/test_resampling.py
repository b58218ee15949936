"""Resizing of bytes, held against torch, against stored values of it and against slow loops."""

from __future__ import annotations

from itertools import product
from math import pi, sin

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redtest_onnx.data.resampling import RESAMPLED, fixed_weights, resize_bytes

# What torch 2.13 gives for `picture`, antialiased.
STORED = {
    ("bicubic", 9, 12): [
        *([75, 117, 92, 81], [134, 115, 94, 83], [161, 155, 78, 89], [124, 99, 90, 79], [141, 97, 76, 94])
    ],
    ("lanczos", 9, 12): [
        *([73, 116, 92, 81], [134, 113, 93, 82], [163, 163, 76, 90], [126, 96, 89, 79], [141, 94, 73, 97])
    ],
    ("bilinear", 9, 12): [
        *([81, 117, 92, 80], [132, 113, 95, 86], [155, 149, 81, 88], [124, 101, 90, 80], [133, 102, 80, 94])
    ],
    ("bicubic", 5, 4): [
        *([0, 16, 25, 0, 133, 255], [27, 49, 94, 158, 139, 112], [70, 112, 174, 219, 93, 0]),
        *([111, 177, 197, 27, 0, 0], [165, 133, 67, 0, 97, 212], [215, 145, 76, 111, 139, 160]),
        [245, 189, 159, 255, 127, 0],
    ],
}


def picture(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Grey values on the left, black and white on the right."""
    y, x = np.mgrid[:height, :width]
    values = (x * 37 + y * 59 + (x * y) % 7 * 31) % 256
    values[:, width // 2 :] = np.where(((x + y) % 3 == 0)[:, width // 2 :], 255, 0)
    return values.astype(np.uint8)


@pytest.mark.parametrize(("interpolation", "height", "width"), STORED)
def test_values_of_torch(interpolation: str, height: int, width: int) -> None:
    wanted = np.array(STORED[interpolation, height, width])
    found = resize_bytes(picture(height, width), (wanted.shape[0], wanted.shape[1]), interpolation)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("interpolation", sorted(RESAMPLED))
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((60, 83), (224, 224)),
        ((231, 117), (32, 40)),
        ((300, 7), (3, 31)),
        ((64, 64), (64, 63)),
        ((1, 5), (3, 2)),
    ],
)
def test_torch_gives_the_same_to_the_bit(
    interpolation: str, before: tuple[int, int], after: tuple[int, int]
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pixels = np.random.default_rng(sum(before)).integers(0, 256, (*before, 3), dtype=np.uint8)
    pixels[: before[0] // 2] = np.where(pixels[: before[0] // 2] > 127, 255, 0)
    how = {"mode": interpolation, "antialias": True, "align_corners": False}
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous(), size=after, **how
    )
    np.testing.assert_array_equal(
        resize_bytes(pixels, after, interpolation), wanted[0].permute(1, 2, 0).numpy()
    )


def _slow_filter(x: float, interpolation: str) -> float:
    x = abs(x)
    if interpolation == "bilinear":
        return max(1 - x, 0)
    if interpolation == "bicubic":
        if x < 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0
    if x == 0:
        return 1
    return 3 * sin(pi * x) * sin(pi * x / 3) / (pi * x) ** 2 if x < 3 else 0


@given(before=st.integers(1, 40), after=st.integers(1, 40), interpolation=st.sampled_from(sorted(RESAMPLED)))
@settings(max_examples=40, deadline=None)
def test_weights_are_the_filter_within_half_of_their_last_bit(
    before: int, after: int, interpolation: str
) -> None:
    reach = {"bilinear": 1, "bicubic": 2, "lanczos": 3}[interpolation]
    stretch = max(before / after, 1)
    slow = np.zeros((after, before))
    for row, column in product(range(after), range(before)):
        centre = (row + 0.5) * before / after
        if int(max(centre - reach * stretch + 0.5, 0)) <= column < int(centre + reach * stretch + 0.5):
            slow[row, column] = _slow_filter((column - centre + 0.5) / stretch, interpolation)
    slow /= slow.sum(axis=1, keepdims=True)
    weights, bits = fixed_weights(before, after, interpolation)
    found = weights.toarray()
    assert np.abs(found).max() < 1 << 15
    np.testing.assert_allclose(found / (1 << bits), slow, rtol=0, atol=0.5001 / (1 << bits))


@given(value=st.integers(0, 255), height=st.integers(1, 9), width=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_a_plain_picture_stays_plain_and_the_same_size_changes_nothing(
    value: int, height: int, width: int
) -> None:
    plain = np.full((height, width), value, np.uint8)
    for interpolation in RESAMPLED:
        assert np.abs(resize_bytes(plain, (5, 12), interpolation).astype(int) - value).max() <= 1
    noise = np.random.default_rng(value).integers(0, 256, (height, width, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_bytes(noise, (height, width), "bicubic"), noise)

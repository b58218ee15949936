"""The picture of a matrix: a PNG that others read, in the colours of the page's own map."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from redtest_onnx.report.page import palette

Image = pytest.importorskip("PIL.Image", reason="reads the picture back with Pillow")


def test_others_read_what_was_written() -> None:
    values = np.array([[0.0, 0.5, 1.0, np.nan], [-1.0, 2.0, 0.25, 0.75]])
    image = Image.open(io.BytesIO(palette.png(values)))
    image.verify()
    pixels = np.asarray(Image.open(io.BytesIO(palette.png(values))).convert("RGB"))
    colours = palette.palette()
    assert pixels.shape == (2, 4, 3)
    np.testing.assert_array_equal(pixels[0], colours[[0, 31, 62, 63]])
    np.testing.assert_array_equal(pixels[1, :2], colours[[0, 62]])


def test_the_page_draws_in_the_same_colours() -> None:
    script = Path(palette.__file__).with_name("base.js").read_text(encoding="utf-8")
    stops = ", ".join(f'"{stop}"' for stop in palette.STOPS)
    assert f"const STOPS = [{stops}]" in script

"""How values on the command line are read."""

from __future__ import annotations

import click
import pytest

from redtest_onnx.cli.parameters import ByteCount


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4 << 30),
        ("512MB", 512 << 20),
        ("1.5g", 3 << 29),
        ("2GiB", 2 << 30),
        (" 10 kb ", 10 << 10),
        ("1000", 1000),
        ("1000B", 1000),
        ("0", 0),
        (4096, 4096),
    ],
)
def test_sizes_have_units_of_1024(text: object, size: int) -> None:
    assert ByteCount().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "B", "GB", "much", "-1GB", "1PB", "nan", "inf", "1GB2"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a size such as 512MB or 4GB"):
        ByteCount().convert(text, None, None)

"""Text and numbers fit to be shown."""

from __future__ import annotations

import pytest

from redtest_onnx.text import digits


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (0.12344, "0.1234"),
        (1.5, "1.5"),
        (999.96, "1000"),
        (1000, "1,000"),
        (2643.7, "2,644"),
        (1e7, "10,000,000"),
    ],
)
def test_numbers_have_no_exponent(value: float, expected: str) -> None:
    assert digits(value) == expected

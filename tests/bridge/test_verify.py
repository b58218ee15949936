"""How far PyTorch's results are from ONNX Runtime's."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from redtest_onnx.bridge.verify import _difference  # noqa: E402


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([math.inf, 2.0], 0.0),
        ([-math.inf, 2.0], math.inf),
        ([math.nan, 2.0], math.inf),
        ([math.inf, math.nan], math.inf),
        ([math.inf, 3.0], 0.5),
    ],
)
def test_what_is_not_finite_must_be_the_same(found: list[float], expected: float) -> None:
    assert _difference(torch.tensor(found), np.array([math.inf, 2.0])) == expected

"""Runs and portions of samples and tensors."""

from __future__ import annotations

import pytest

from redtest_onnx.data.batching import portions


@pytest.mark.parametrize(
    ("sizes", "limit", "expected"),
    [
        ([], 3, []),
        ([1, 2, 3], 3, [[1, 2], [3]]),
        ([5, 1, 1, 5, 1], 3, [[5], [1, 1], [5], [1]]),
        ([1, 1, 1], 2, [[1, 1], [1]]),
        ([2, 2], 4, [[2, 2]]),
    ],
)
def test_portions_hold_no_more_than_the_limit_in_order(
    sizes: list[int], limit: int, expected: list[list[int]]
) -> None:
    assert list(portions(sizes, lambda size: size, limit)) == expected

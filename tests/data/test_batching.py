"""Runs and portions of samples and tensors."""

from __future__ import annotations

import numpy as np
import pytest

from redtest_onnx.data.batching import batches, counting, portions


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


def test_only_what_fills_a_run_up_does_not_count() -> None:
    (first, whole), (second, part) = batches(np.arange(5), 3, fixed=True)
    assert counting(first, whole, len(first)).tolist() == [0, 1, 2]
    assert counting(second, part, len(second)).tolist() == [3, 4]
    nodes = np.zeros((7, 2))  # of the one graph of a run
    assert counting(nodes, 1, 1) is nodes

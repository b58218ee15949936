"""Halves of symmetric matrices against whole ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redtest_onnx.metrics import symmetric
from redtest_onnx.metrics.symmetric import SymmetricSums, dense_total


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symmetric, "_BLOCK", 4)


def dense(sums: SymmetricSums, groups: int) -> np.ndarray:
    return np.stack([dense_total([sums], group) for group in range(groups)])


@settings(max_examples=40, deadline=None)
@given(
    groups=st.integers(1, 3), size=st.integers(0, 13), rows=st.integers(0, 9), seed=st.integers(0, 2**32 - 1)
)
def test_all_of_it_is_that_of_whole_matrices(groups: int, size: int, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, more = rng.normal(size=(groups, rows, size)), rng.normal(size=(groups, 5, size))
    a, b = rng.normal(size=(groups, size)), rng.normal(size=(groups, size))
    sums = SymmetricSums.zeros(groups, size)
    assert not dense(sums, groups).any()
    for part in (SymmetricSums.of_rows(x), SymmetricSums.of_rows(more)):
        sums.add(part)
    expected = x.transpose(0, 2, 1) @ x + more.transpose(0, 2, 1) @ more
    np.testing.assert_allclose(dense(sums, groups), expected, atol=1e-12)
    np.testing.assert_allclose(sums.diagonal, np.diagonal(expected, axis1=1, axis2=2), atol=1e-12)
    right = rng.normal(size=(groups, size, 2))
    np.testing.assert_allclose(sums.times(right), expected @ right, atol=1e-11)
    crossed = a[:, :, None] * b[:, None, :]
    crossed = crossed + crossed.transpose(0, 2, 1)
    pairs = SymmetricSums.of_pairs(a, b)
    np.testing.assert_allclose(dense(pairs, groups), crossed, atol=1e-12)
    for group in range(groups):
        total = dense_total([sums, pairs], group)
        np.testing.assert_allclose(total, expected[group] + crossed[group], atol=1e-12)
        np.testing.assert_array_equal(total, total.T)
        total[...] = np.nan  # new memory
    assert sums.finite
    assert pairs.finite


def test_precision_is_that_of_the_rows_and_only_half_is_kept() -> None:
    rows = np.ones((1, 3, 100), np.float32)
    sums = SymmetricSums.of_rows(rows)
    blocks = sums._blocks.values()
    assert {block.dtype for block in blocks} == {np.dtype(np.float32)}
    assert sum(block.size for block in blocks) == 25 * 26 // 2 * 16


def test_values_that_are_not_finite_are_seen_in_any_block() -> None:
    for place in (0, 5, 9):
        rows = np.zeros((1, 2, 10))
        rows[0, 0, place] = np.inf
        with np.errstate(invalid="ignore"):
            assert not SymmetricSums.of_rows(rows).finite

"""Positions that a mask leaves out, in sequences and in their rows put one below the other."""

from __future__ import annotations

import numpy as np
import pytest

from redtest_onnx.pruning.repair.positions import counted_rows, silenced

MASK = np.array([[True, True, False], [False, True, True]])


def test_rows_are_counted_as_the_mask_says() -> None:
    np.testing.assert_array_equal(counted_rows(np.zeros((2, 3, 5)), MASK), MASK)  # type: ignore[arg-type]
    np.testing.assert_array_equal(counted_rows(np.zeros((6, 5)), MASK), MASK.reshape(-1))  # type: ignore[arg-type]


def test_shorter_sequences_hold_the_last_positions() -> None:
    found = counted_rows(np.zeros((2, 2, 5)), MASK)
    np.testing.assert_array_equal(found, [[True, False], [True, True]])  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(2, 4, 5), (3, 3, 5), (5, 5), (7, 5), (2, 3), (6,), (2, 3, 5, 1)])
def test_other_values_are_no_sequences_that_the_mask_speaks_of(shape: tuple[int, ...]) -> None:
    assert counted_rows(np.zeros(shape), MASK) is None
    assert counted_rows(np.zeros((2, 3, 5)), None) is None


def test_errors_at_positions_that_do_not_count_are_zero() -> None:
    error = np.arange(1.0, 13.0).reshape(2, 3, 2)
    error[0, 2] = np.nan
    found = silenced(error, MASK)
    np.testing.assert_array_equal(found[MASK], error[MASK])
    np.testing.assert_array_equal(found[~MASK], 0)
    assert found.dtype == error.dtype
    single = silenced(error.astype(np.float32), MASK)
    assert single.dtype == np.float32


def test_where_all_count_the_very_errors_come_back() -> None:
    error = np.ones((2, 3, 2))
    assert silenced(error, None) is error
    assert silenced(error, np.ones((2, 3), bool)) is error
    assert silenced(np.ones((2, 7)), MASK).shape == (2, 7)

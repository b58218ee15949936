"""LAPACK by address against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from redtest_onnx.metrics.lapack import factored, substitute


@pytest.mark.parametrize(("size", "sides"), [(1, 1), (5, 3), (70, 130), (4, 0)])
def test_systems_are_solved_in_place(size: int, sides: int) -> None:
    rng = np.random.default_rng(size)
    rows = rng.normal(size=(size, size))
    matrix, right = rows @ rows.T + np.eye(size), rng.normal(size=(sides, size))
    expected = np.linalg.solve(matrix, right.T).T
    factor = matrix.copy()
    assert factored(factor)
    np.testing.assert_allclose(np.triu(factor), np.linalg.cholesky(matrix).T, rtol=1e-9)
    substitute(factor, right)
    np.testing.assert_allclose(right, expected, rtol=1e-8)


def test_what_is_not_positive_definite_is_told() -> None:
    assert not factored(np.array([[1.0, 2.0], [2.0, 1.0]]))

"""Symmetric systems with a penalty, against their eigenvalues."""

from __future__ import annotations

import numpy as np
import pytest

from redtest_onnx.metrics.penalised import Fresh, diagnosis, explained, solved


def matrix_of(values: list[float], seed: int = 0) -> np.ndarray:
    """[p, p] symmetric, with these eigenvalues."""
    turned = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))[0]
    made: np.ndarray = turned * values @ turned.T
    return (made + made.T) / 2


def fresh(matrices: np.ndarray) -> Fresh:
    """Copies that may be overwritten."""
    return lambda group: matrices[group].copy()


def test_every_usable_group_is_solved_and_the_others_are_zero() -> None:
    matrices = np.stack([matrix_of([3.0, 2.0, 1.0], seed) for seed in range(3)])
    right = np.random.default_rng(1).normal(size=(3, 3, 2))
    penalty = np.array([0.5, 0.0, 2.0])
    found = solved(fresh(matrices), penalty, right, np.array([True, False, True]))
    for group in (0, 2):
        expected = np.linalg.solve(matrices[group] + penalty[group] * np.eye(3), right[group])
        np.testing.assert_allclose(found[group], expected, rtol=1e-10)
    assert not found[1].any()


def test_what_rounding_left_below_zero_counts_as_zero() -> None:
    """A direction without any value takes no part; the others are solved as if it was not there."""
    matrix = matrix_of([4.0, 1.0, -1e-9])
    right = np.random.default_rng(2).normal(size=(1, 3, 2))
    values, vectors = np.linalg.eigh(matrix)
    carried = vectors[:, values > 1e-3]
    expected = carried @ np.diag(1 / values[values > 1e-3]) @ carried.T @ right[0]
    np.testing.assert_allclose(solved(fresh(matrix[None]), np.zeros(1), right, np.array([True]))[0], expected)
    penalty = 1e-10  # too small to lift what rounding left
    raised = carried @ np.diag(1 / (values[values > 1e-3] + penalty)) @ carried.T @ right[0]
    least = vectors[:, :1] @ vectors[:, :1].T @ right[0] / penalty
    found = solved(fresh(matrix[None]), np.array([penalty]), right, np.array([True]))[0]
    np.testing.assert_allclose(found, raised + least, rtol=1e-6)


def test_the_explained_share_is_that_of_the_rows() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(50, 4)), rng.normal(size=(50, 2))
    xx, xy = (x.T @ x)[None], (x.T @ y)[None]
    for penalty in (np.zeros(1), np.full(1, 7.0)):
        weight = solved(fresh(xx), penalty, xy, np.array([True]))
        left = np.square(y - x @ weight[0]).sum()
        energy = np.array([np.square(y).sum()])
        assert explained(weight, xy, penalty, energy)[0] == pytest.approx(1 - left / energy[0])
    assert explained(np.ones((1, 4, 2)), xy, np.zeros(1), np.zeros(1))[0] == 0


def test_the_rank_counts_what_exceeds_the_penalty() -> None:
    matrices = np.stack([matrix_of([5.0, 3.0, 0.2, 0.1]), matrix_of([4.0, 0.3, 0.2, 0.1], 1)])
    found = diagnosis(fresh(matrices), np.array([0.5, 0.15]), 4)
    assert found.rank == 2 + 3
    assert (
        diagnosis(fresh(matrices), np.array([0.5, 0.15]), 2).rank == 4
    )  # two unknowns in each of two groups
    assert diagnosis(fresh(np.zeros((1, 3, 3))), np.zeros(1), 3).rank == 0
    assert diagnosis(fresh(np.zeros((1, 3, 3))), np.zeros(1), 3).condition == 1


def test_the_condition_is_that_of_the_worst_group() -> None:
    matrices = np.stack([np.diag([8.0, 2.0]), np.diag([100.0, 1.0])])
    assert diagnosis(fresh(matrices), np.zeros(2), 2).condition == pytest.approx(100)
    assert diagnosis(fresh(matrices), np.full(2, 1.0), 2).condition == pytest.approx(101 / 2)

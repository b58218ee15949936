"""Fits to fewer rows than unknowns against those of the normal equations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from least_squares_problems import equations, filled, ridge_by_spectrum

from redtest_onnx.metrics import few_rows
from redtest_onnx.metrics.few_rows import FewRows
from redtest_onnx.metrics.least_squares import best_fit


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(1, 60), st.integers(0, 2**31), st.floats(1e-4, 0.9))
def test_few_rows_give_the_solution_of_the_normal_equations(
    rows: int, p: int, seed: int, ridge: float
) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(rows, p)) + 2, rng.normal(size=(rows, 3))
    weight, bias = ridge_by_spectrum(x, y, ridge)
    few, many = filled(FewRows(), x, y), equations(x, y)
    for kind in (few, many):
        fit = kind.solve(ridge)
        np.testing.assert_allclose(fit.weight[0], weight, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(fit.bias[0], bias, rtol=1e-5, atol=1e-7)
    for intercept in (True, False):
        one, other = (kind.solve(ridge, intercept=intercept) for kind in (few, many))
        np.testing.assert_allclose(one.weight, other.weight, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(one.explained, other.explained, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(few.residual(one), many.residual(other), rtol=1e-5, atol=1e-9)
        found = [kind.diagnose(one, intercept=intercept) for kind in (few, many)]
        assert found[0].rank == found[1].rank
        held_out = filled(FewRows(), x[::-1] * 2 - 1, y + 1)
        error = few.errors_on(held_out, intercept=intercept)(ridge)
        np.testing.assert_allclose(error, held_out.residual(one), rtol=1e-6, atol=1e-9)


def test_the_error_on_few_rows_is_that_of_these_rows() -> None:
    """Whichever other rows were asked for before."""
    rng = np.random.default_rng(3)
    few = filled(FewRows(), rng.normal(size=(9, 20)), rng.normal(size=(9, 2)))
    for _ in range(3):
        check = filled(FewRows(), rng.normal(size=(5, 20)) + 1, rng.normal(size=(5, 2)))
        np.testing.assert_allclose(few.errors_on(check)(0.1), check.residual(few.solve(0.1)), rtol=1e-9)
    np.testing.assert_array_equal(few.errors_on(FewRows())(0.1), [1.0])


def problem(rows: int, p: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, p)) + 3 * rng.normal(size=p)
    return x, x @ rng.normal(size=(p, 2)) + rng.normal(size=(rows, 2))


@pytest.mark.parametrize("intercept", [True, False])
def test_other_targets_of_known_rows_give_the_fit_of_new_ones(
    intercept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, first = problem(24, 40, 1)
    second = np.random.default_rng(2).normal(size=first.shape) + x[:, :2]
    train, check = filled(FewRows(), x[:18], first[:18]), filled(FewRows(), x[18:], first[18:])
    best_fit(train, check, intercept=intercept)
    again = [
        filled(known.without_targets(), np.full_like(x[part], np.nan), second[part])
        for known, part in ((train, slice(18)), (check, slice(18, None)))
    ]
    with monkeypatch.context() as patched:
        patched.setattr(few_rows, "gram", None)  # no product is formed again
        found = best_fit(*again, intercept=intercept)
    parts = [filled(FewRows(), x[part], second[part]) for part in (slice(18), slice(18, None))]
    expected = best_fit(*parts, intercept=intercept)
    assert found is not None
    assert expected is not None
    np.testing.assert_array_equal(found.weight, expected.weight)
    np.testing.assert_array_equal(found.bias, expected.bias)
    np.testing.assert_array_equal(found.penalty, expected.penalty)


def test_rows_are_left_out_whose_other_targets_are_not_finite() -> None:
    x, y = problem(20, 30, 3)
    known = filled(FewRows(), x, y)
    known.solve(0.1)
    broken = y.copy()
    broken[[4, 11]] = np.inf, np.nan
    found = filled(known.without_targets(), x, broken).solve(0.1)
    rest = np.isfinite(broken).all(axis=1)
    expected = filled(FewRows(), x[rest], y[rest]).solve(0.1)
    np.testing.assert_allclose(found.weight, expected.weight, rtol=1e-9, atol=1e-12)
    once = filled(known.without_targets(), x, broken)
    again = filled(once.without_targets(), x, y).solve(0.1)  # rows that were left out stay so
    np.testing.assert_allclose(again.weight, expected.weight, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(known.solve(0.1).weight, filled(FewRows(), x, y).solve(0.1).weight, rtol=1e-9)


def test_rows_of_single_precision_far_from_zero_are_solved_as_exactly_as_they_are() -> None:
    x, y = problem(40, 60, 4)
    x, y = (x + 100).astype(np.float32), y.astype(np.float32)
    for ridge in (1e-4, 1e-1):
        weight, bias = ridge_by_spectrum(x, y, ridge)
        fit = filled(FewRows(), x, y).solve(ridge)
        np.testing.assert_allclose(fit.weight[0], weight, atol=1e-5 * np.abs(weight).max())
        np.testing.assert_allclose(fit.bias[0], bias, rtol=1e-4, atol=1e-2)


def test_values_near_the_end_of_single_precision_are_multiplied_in_double() -> None:
    x, y = problem(8, 12, 5)
    found = filled(FewRows(), (x * 1e25).astype(np.float32), y).solve(0.1)
    expected = filled(FewRows(), x, y).solve(0.1)
    np.testing.assert_allclose(found.weight * 1e25, expected.weight, rtol=1e-4, atol=1e-6)

"""Fits to fewer rows than unknowns against those of the normal equations."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from least_squares_problems import equations, filled, ridge_by_spectrum

from redtest_onnx.metrics.few_rows import FewRows


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

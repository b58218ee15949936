from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redtest_onnx.metrics.ridge import NormalEquations, best_fit


def equations(x: np.ndarray, y: np.ndarray, batch: int = 7) -> NormalEquations:
    sums = NormalEquations(x.shape[1], y.shape[1])
    for start in range(0, len(x), batch):
        sums.add(x[start : start + batch], y[start : start + batch])
    return sums


@pytest.fixture
def problem() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)) + 3
    return x, x @ rng.normal(size=(5, 2)) + [1.0, -2.0] + rng.normal(scale=0.1, size=(200, 2))


def test_fit_is_the_least_squares_solution(problem: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = problem
    fit = equations(x, y).solve(0.0)
    expected = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0]
    np.testing.assert_allclose(fit.weight, expected[:-1], rtol=1e-8)
    np.testing.assert_allclose(fit.bias, expected[-1], rtol=1e-8)
    assert fit.rank == 5


def test_fit_without_intercept(problem: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = problem
    fit = equations(x, y).solve(0.0, intercept=False)
    np.testing.assert_allclose(fit.weight, np.linalg.lstsq(x, y, rcond=None)[0], rtol=1e-8)
    assert not fit.bias.any()


def test_penalty_shrinks_towards_zero(problem: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = problem
    x_c, y_c = x - x.mean(0), y - y.mean(0)
    normal = x_c.T @ x_c
    penalty = 0.5 * np.trace(normal) / 5
    expected = np.linalg.solve(normal + penalty * np.eye(5), x_c.T @ y_c)
    np.testing.assert_allclose(equations(x, y).solve(0.5).weight, expected, rtol=1e-8)


def test_residual_is_that_of_the_rows(problem: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = problem
    fit = equations(x[:100], y[:100]).solve(0.1)
    error = y[100:] - x[100:] @ fit.weight - fit.bias
    expected = np.square(error).sum() / np.square(y[100:]).sum()
    assert equations(x[100:], y[100:]).residual(fit) == pytest.approx(expected, rel=1e-6)


def test_explained_share(problem: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = problem
    fit = equations(x, y).solve(0.0)
    error = y - x @ fit.weight - fit.bias
    expected = 1 - np.square(error).sum() / np.square(y - y.mean(0)).sum()
    assert fit.explained == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["constant", "collinear", "few", "none", "zero"])
def test_degenerate_rows_give_finite_values(kind: str) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(50, 6)), rng.normal(size=(50, 3))
    if kind == "constant":
        x[:] = 4.0
    elif kind == "collinear":
        x[:, 1:] = x[:, :1]
    elif kind == "few":
        x, y = x[:2], y[:2]
    elif kind == "none":
        x, y = x[:0], y[:0]
    else:
        x[:] = 0
    fit = equations(x, y).solve(1e-4)
    assert np.isfinite(fit.weight).all()
    assert np.isfinite(fit.bias).all()
    assert np.isfinite(fit.condition)


def test_rows_that_are_not_finite_are_left_out(problem: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = problem
    broken = x.copy()
    broken[3, 0], broken[50, 2] = np.nan, np.inf
    keep = np.isfinite(broken).all(axis=1)
    expected = equations(x[keep], y[keep]).solve(0.1)
    found = equations(broken, y)
    assert found.rows == keep.sum()
    np.testing.assert_allclose(found.solve(0.1).weight, expected.weight)


def test_best_fit_refuses_noise() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(40, 30)), rng.normal(size=(40, 1))
    assert best_fit(equations(x[:20], y[:20]), equations(x[20:] * 3, -y[20:] - 5), intercept=False) is None


def test_best_fit_uses_all_rows(problem: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = problem
    fit = best_fit(equations(x[:150], y[:150]), equations(x[150:], y[150:]))
    assert fit is not None
    np.testing.assert_allclose(fit.weight, equations(x, y).solve(1e-4).weight, rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**31), st.floats(1e-4, 1.0))
def test_sums_do_not_depend_on_batches(p: int, q: int, seed: int, ridge: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(30, p)), rng.normal(size=(30, q))
    one, many = equations(x, y, 30).solve(ridge), equations(x, y, 4).solve(ridge)
    np.testing.assert_allclose(one.weight, many.weight, rtol=1e-6, atol=1e-9)

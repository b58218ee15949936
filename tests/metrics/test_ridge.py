"""Sums over rows, and the ridge solutions that they give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from least_squares_problems import equations, filled, linear_problem, ridge_by_spectrum

from redtest_onnx.metrics.least_squares import best_fit
from redtest_onnx.metrics.ridge import NormalEquations
from redtest_onnx.metrics.symmetric import dense_total


@pytest.fixture
def problem() -> tuple[np.ndarray, np.ndarray]:
    return linear_problem()


def test_fit_is_the_least_squares_solution(problem: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = problem
    fit = equations(x, y).solve(0.0)
    expected = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0]
    np.testing.assert_allclose(fit.weight[0], expected[:-1], rtol=1e-8)
    np.testing.assert_allclose(fit.bias[0], expected[-1], rtol=1e-8)
    assert equations(x, y).diagnose(fit).rank == 5


def test_fit_without_intercept(problem: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = problem
    fit = equations(x, y).solve(0.0, intercept=False)
    np.testing.assert_allclose(fit.weight[0], np.linalg.lstsq(x, y, rcond=None)[0], rtol=1e-8)
    assert not fit.bias.any()


def test_penalty_shrinks_towards_zero(problem: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = problem
    x_c, y_c = x - x.mean(0), y - y.mean(0)
    normal = x_c.T @ x_c
    penalty = 0.5 * np.trace(normal) / 5
    expected = np.linalg.solve(normal + penalty * np.eye(5), x_c.T @ y_c)
    np.testing.assert_allclose(equations(x, y).solve(0.5).weight[0], expected, rtol=1e-8)


def test_residual_is_that_of_the_rows(problem: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = problem
    fit = equations(x[:100], y[:100]).solve(0.1)
    error = y[100:] - x[100:] @ fit.weight[0] - fit.bias[0]
    expected = np.square(error).sum() / np.square(y[100:]).sum()
    assert equations(x[100:], y[100:]).residual(fit) == pytest.approx(expected, rel=1e-6)


def test_explained_share(problem: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = problem
    fit = equations(x, y).solve(0.0)
    error = y - x @ fit.weight[0] - fit.bias[0]
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
    sums = equations(x, y)
    fit = sums.solve(1e-4)
    assert np.isfinite(fit.weight).all()
    assert np.isfinite(fit.bias).all()
    assert np.isfinite(sums.diagnose(fit).condition)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("whole", ["x", "y", "neither"])
@pytest.mark.parametrize("batch", [4, 1000])
def test_rows_that_are_not_finite_are_left_out(
    problem: tuple[np.ndarray, np.ndarray], dtype: type, whole: str, batch: int
) -> None:
    x, y = (values.astype(dtype) for values in problem)
    broken, also = x.copy(), y.copy()
    if whole != "x":
        broken[3, 0], broken[50, 2] = np.nan, -np.inf
    if whole != "y":
        also[7, 1], also[51, 0] = np.inf, np.nan
    keep = np.isfinite(broken).all(axis=1) & np.isfinite(also).all(axis=1)
    expected = equations(x[keep], y[keep]).solve(0.1)
    found = equations(broken, also, batch=batch)
    assert found.rows == keep.sum()
    close = 1e-7 if dtype is np.float64 else 1e-4
    np.testing.assert_allclose(found.solve(0.1).weight, expected.weight, rtol=close, atol=close)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("batch", [4, 1000])
@pytest.mark.parametrize("first", [(), (7, 120)])
@pytest.mark.parametrize("second", [(), (3, 7, 90)])
def test_other_targets_leave_out_the_rows_where_they_are_not_finite(
    problem: tuple[np.ndarray, np.ndarray],
    first: tuple[int, ...],
    second: tuple[int, ...],
    batch: int,
    intercept: bool,
) -> None:
    """Whichever rows the targets before left out; those before keep their solution."""
    x, y = problem
    before, now = y[:, ::-1].copy(), y.copy()
    before[list(first)], now[list(second)] = np.nan, np.inf
    known = equations(x, before, batch)
    answer = known.solve(0.1).weight
    found = filled(known.without_targets(), x, now, batch)
    keep = np.isfinite(now).all(axis=1)
    expected = equations(x[keep], now[keep], batch)
    one, other = (sums.solve(0.1, intercept=intercept) for sums in (found, expected))
    assert found.rows == keep.sum()
    np.testing.assert_allclose(one.weight, other.weight, rtol=1e-9)
    np.testing.assert_allclose(one.bias, other.bias, rtol=1e-9)
    np.testing.assert_allclose(found.residual(one), expected.residual(other), rtol=1e-6)
    np.testing.assert_array_equal(known.solve(0.1).weight, answer)
    third = filled(found.without_targets(), x, y, batch)
    np.testing.assert_allclose(third.solve(0.1).weight, equations(x, y).solve(0.1).weight, rtol=1e-9)


def test_rows_whose_sum_leaves_single_precision_are_fitted() -> None:
    rng = np.random.default_rng(3)
    x = (rng.random((60, 3)) + 1) * 1e38
    y = x @ rng.normal(size=(3, 2)) * 1e-38 + 0.5
    a, b = x.astype(np.float32), y.astype(np.float32)
    with np.errstate(over="ignore"):
        assert not np.isfinite(a.sum(axis=0)).all()
    found, expected = equations(a, b, batch=60), equations(x, y, batch=60)
    assert found.rows == 60
    np.testing.assert_allclose(found.x + 60 * found._offset, expected.x + 60 * expected._offset, rtol=1e-6)
    np.testing.assert_allclose(found.solve(1e-6).weight, expected.solve(1e-6).weight, rtol=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**31), st.floats(1e-4, 1.0))
def test_sums_do_not_depend_on_batches(p: int, q: int, seed: int, ridge: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(30, p)), rng.normal(size=(30, q))
    one, many = equations(x, y, 30).solve(ridge), equations(x, y, 4).solve(ridge)
    np.testing.assert_allclose(one.weight, many.weight, rtol=1e-6, atol=1e-9)


def test_what_is_solved_is_a_copy(problem: tuple[np.ndarray, np.ndarray]) -> None:
    """Of sums that more rows may be added to: factors overwrite their matrix."""
    x, y = problem
    train, check = equations(x[:150], y[:150]), equations(x[150:], y[150:])
    before = [dense_total(sums.products, 0) for sums in (train, check)]
    first = best_fit(train, check)
    assert first is not None
    train.merged(check).diagnose(first)
    for sums, xx in zip((train, check), before, strict=True):
        np.testing.assert_array_equal(dense_total(sums.products, 0), xx)
    again = best_fit(train, check)
    assert again is not None
    np.testing.assert_array_equal(again.weight, first.weight)


@pytest.mark.parametrize("intercept", [True, False])
def test_merged_sums_are_those_of_all_rows(problem: tuple[np.ndarray, np.ndarray], intercept: bool) -> None:
    x, y = problem
    parts = [equations(x[part], y[part]) for part in (slice(60), slice(60, 130), slice(130, 200))]
    merged = parts[0].merged(parts[1]).merged(parts[2])
    whole = equations(x, y)
    one, other = (sums.solve(0.01, intercept=intercept) for sums in (merged, whole))
    np.testing.assert_allclose(one.weight, other.weight, rtol=1e-9)
    np.testing.assert_allclose(one.explained, other.explained, rtol=1e-9)
    found = [sums.diagnose(one, intercept=intercept) for sums in (merged, whole)]
    assert found[0].rank == found[1].rank
    assert found[0].condition == pytest.approx(found[1].condition, rel=1e-6)
    np.testing.assert_allclose(merged.residual(one), whole.residual(one), rtol=1e-6)


def test_rank_and_condition_are_those_of_the_spectrum() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 20)) * np.geomspace(1, 1e-4, 20)
    sums = equations(x, rng.normal(size=(500, 2)))
    for ridge in (1e-4, 1e-2):
        fit = sums.solve(ridge)
        values = np.linalg.eigvalsh(np.cov(x.T, bias=True) * 500)
        penalty = ridge * values.mean()
        found = sums.diagnose(fit)
        assert found.rank == np.sum(values > penalty)
        exact = np.linalg.cond(np.cov(x.T, bias=True) * 500 + penalty * np.eye(20), 1)
        assert found.condition == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_single_precision_products_lose_nothing_on_other_rows(mean: float) -> None:
    """Features like those of networks: correlated, a spectrum over four decades, far from zero."""
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(120, 120)) * np.geomspace(1, 1e-2, 120)[:, None]
    x = (np.maximum(rng.normal(size=(9000, 120)) @ mix, 0) + mean).astype(np.float32)
    y = (x @ rng.normal(size=(120, 8)) * 0.1 + rng.normal(size=(9000, 8))).astype(np.float32)
    for ridge in (1e-4, 1e-2):
        fit = equations(x[:6000], y[:6000], 500).solve(ridge)
        weight, bias = ridge_by_spectrum(x[:6000], y[:6000], ridge)
        errors = [
            float(np.square(y[6000:].astype(np.float64) - x[6000:].astype(np.float64) @ w - b).sum())
            for w, b in ((fit.weight[0], fit.bias[0]), (weight, bias))
        ]
        assert errors[0] == pytest.approx(errors[1], rel=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("intercept", [True, False])
def test_blocks_of_the_normal_matrix_change_nothing_but_rounding(
    monkeypatch: pytest.MonkeyPatch, groups: int, intercept: bool
) -> None:
    """Of wide inputs half of the matrix is kept, in blocks; those in the middle are no squares."""
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(90, groups, 11)) * np.geomspace(1, 0.1, 11) + 2).astype(np.float32)
    y = x @ rng.normal(size=(11, 3)) + rng.normal(size=(90, groups, 3))

    def fitted() -> list[np.ndarray]:
        train, check = NormalEquations(11, 3, groups), NormalEquations(11, 3, groups)
        train.add(x[:60], y[:60])
        check.add(x[60:], y[60:])  # about a mean of its own
        fit = best_fit(train, check, intercept=intercept)
        assert fit is not None
        known = train.merged(check).diagnose(fit, intercept=intercept)
        return [fit.weight, fit.bias, train.residual(fit), np.array([known.condition, known.rank])]

    whole = fitted()
    monkeypatch.setattr("redtest_onnx.metrics.symmetric._BLOCK", 4)
    for one, other in zip(whole, fitted(), strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-4)


def test_rows_of_which_none_is_finite_add_nothing() -> None:
    x, y = linear_problem()
    expected, found = equations(x, y), NormalEquations(x.shape[1], y.shape[1])
    for rows in (x[:0], np.full_like(x[:9], np.nan)):
        found.add(rows[:, None], y[: len(rows), None])
    filled(found, x, y)
    assert found.rows == len(x)
    np.testing.assert_allclose(found.solve(0.1).weight, expected.solve(0.1).weight, rtol=1e-9)

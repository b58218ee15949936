"""Penalties that rows choose which the fit does not see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from least_squares_problems import equations, filled, linear_problem

from redtest_onnx.metrics.few_rows import FewRows
from redtest_onnx.metrics.least_squares import PENALTIES, best_fit
from redtest_onnx.metrics.ridge import NormalEquations


def assert_chosen(train: Any, check: Any, penalty: float) -> None:
    """That the best fit is the one with this penalty."""
    fit = best_fit(train, check)
    assert fit is not None
    np.testing.assert_allclose(fit.penalty, train.merged(check).solve(penalty).penalty, rtol=1e-9)


def test_best_fit_refuses_noise() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(40, 30)), rng.normal(size=(40, 1))
    assert best_fit(equations(x[:20], y[:20]), equations(x[20:] * 3, -y[20:] - 5), intercept=False) is None


def test_best_fit_uses_all_rows() -> None:
    x, y = linear_problem()
    fit = best_fit(equations(x[:150], y[:150]), equations(x[150:], y[150:]))
    assert fit is not None
    np.testing.assert_allclose(fit.weight[0], equations(x, y).solve(1e-4).weight[0], rtol=1e-9)


@pytest.mark.parametrize("kind", [lambda p, q: FewRows(), NormalEquations])
@pytest.mark.parametrize(("noise", "best"), [(0.0, 1), (0.12, 1), (0.4, 2), (1.3, 3), (5.0, 4)])
def test_the_largest_penalty_near_the_least_error_is_taken(kind: Any, noise: float, best: int) -> None:
    """Wherever that lies; what a smaller one brings may be less than a thousandth."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 80)) * np.geomspace(1, 0.05, 80)
    y = x @ rng.normal(size=(80, 40)) + noise * rng.normal(size=(60, 40))
    train, check = (filled(kind(80, 40), x[part], y[part]) for part in (slice(40), slice(40, 60)))
    errors = [float(check.residual(train.solve(ridge))[0]) for ridge in PENALTIES]
    assert errors[best] <= 1.001 * min(errors) < min([np.inf, *errors[best + 1 :]])
    assert_chosen(train, check, PENALTIES[best])


def test_a_second_minimum_at_small_penalties_is_left_alone() -> None:
    """A large direction of x says something of y, and a tiny one, too; the noise of others lies between."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(400, 40)) * np.concatenate([[10.0], np.full(38, 1.0), [0.02]])
    y = 0.1 * x[:, :1] + 60.0 * x[:, -1:] + rng.normal(size=(400, 1)) * 0.35
    train, check = (filled(NormalEquations(40, 1), x[part], y[part]) for part in (slice(60), slice(60, 400)))
    errors = [float(check.residual(train.solve(ridge))[0]) for ridge in PENALTIES]
    assert errors[0] < errors[4] < errors[1]
    assert_chosen(train, check, PENALTIES[4])


def test_a_slow_fall_at_large_penalties_is_no_minimum() -> None:
    """A few directions of x are huge and say nothing: only small penalties show the others."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 20)) * np.concatenate([[1000.0], np.ones(19)])
    y = x[:, 1:] @ rng.normal(size=(19, 3))
    train, check = (
        filled(NormalEquations(20, 3), x[part], y[part]) for part in (slice(600), slice(600, 900))
    )
    errors = [float(check.residual(train.solve(ridge))[0]) for ridge in PENALTIES]
    assert errors[3] > 0.999 * errors[4]
    assert errors[0] < 0.9
    assert_chosen(train, check, PENALTIES[0])


def test_groups_have_each_a_penalty_of_their_own() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 2, 80)) * np.geomspace(1, 0.05, 80)
    noise = np.array([0.12, 5.0])[:, None] * rng.normal(size=(60, 2, 40))
    y = x @ rng.normal(size=(80, 40)) + noise
    train, check = NormalEquations(80, 40, 2), NormalEquations(80, 40, 2)
    train.add(x[:40], y[:40])
    check.add(x[40:], y[40:])
    both = best_fit(train, check)
    assert both is not None
    ratios = []
    for g in range(2):
        alone = [
            filled(NormalEquations(80, 40), x[part, g], y[part, g]) for part in (slice(40), slice(40, 60))
        ]
        fit = best_fit(*alone)
        assert fit is not None
        np.testing.assert_allclose(both.penalty[g], fit.penalty[0], rtol=1e-6)
        ratios.append(fit.penalty[0])
    assert ratios[1] > 100 * ratios[0]


def test_groups_are_independent_problems() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(90, 3, 4)), rng.normal(size=(90, 3, 2))
    y[:, 1] += x[:, 1, :2] * 3
    train, check = (NormalEquations(4, 2, 3) for _ in range(2))
    train.add(x[:60], y[:60])
    check.add(x[60:], y[60:])
    fit = best_fit(train, check)
    assert fit is not None
    for g in range(3):
        alone = best_fit(equations(x[:60, g], y[:60, g]), equations(x[60:, g], y[60:, g]))
        expected = np.zeros((4, 2)) if alone is None else alone.weight[0]
        np.testing.assert_allclose(fit.weight[g], expected, rtol=1e-8, atol=1e-12)


def test_where_all_is_explained_the_smallest_penalty_is_taken() -> None:
    """The error there may be less than nothing by rounding."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)).astype(np.float32)
    y = x @ rng.normal(size=(3, 2))
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(400)
        train, check = (equations(x[part], y[part]) for part in (order[:300], order[300:]))
        assert_chosen(train, check, PENALTIES[0])

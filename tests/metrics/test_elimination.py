"""Backward elimination of channels, against fits from scratch in float64."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redtest_onnx.metrics import elimination
from redtest_onnx.metrics.elimination import LinearReader, eliminate, fitted


def reader(rng: np.random.Generator, channels: int, places: int, outputs: int) -> LinearReader:
    size = channels * places
    x = rng.normal(size=(5 * size, size)) @ rng.normal(size=(size, size))
    weight = rng.normal(size=(size, outputs))
    moments = np.cov(x.T, bias=True).reshape(size, size)
    return LinearReader(moments, weight, float(np.trace(weight.T @ moments @ weight)))


def error(one: LinearReader, kept: np.ndarray, channels: int) -> float:
    """Relative squared error of the best penalised weights for some channels, from the equations."""
    places, regular = len(one.moments) // channels, one.penalised
    rows = [channel * places + k for channel in kept for k in range(places)]
    change = -one.weight.copy()
    best = np.linalg.solve(regular[np.ix_(rows, rows)], regular[rows] @ one.weight)
    change[rows] += best
    return float(np.trace(change.T @ regular @ change)) / one.energy


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
def test_errors_are_those_of_fits_and_each_step_is_the_best(
    seed: int, channels: int, places: int, outputs: int, maps: int
) -> None:
    rng = np.random.default_rng(seed)
    readers = [reader(rng, channels, places, outputs) for _ in range(maps)]
    found = eliminate(readers, channels)
    assert sorted(found.order) == list(range(channels))
    assert found.errors[0] == 0
    for gone in range(1, channels):
        kept = found.kept(channels - gone)
        whole = sum(error(one, kept, channels) for one in readers)
        assert found.errors[gone] == pytest.approx(whole, rel=1e-6, abs=1e-9)
        before = found.kept(channels - gone + 1)
        others = [np.delete(before, k) for k in range(len(before))]
        best = min(sum(error(one, other, channels) for one in readers) for other in others)
        assert whole == pytest.approx(best, rel=1e-6, abs=1e-9)


def test_fitted_weights_are_the_best() -> None:
    one = reader(np.random.default_rng(1), 5, 2, 3)
    kept = np.array([0, 3])
    change = -one.weight.copy()
    change[[0, 1, 6, 7]] += fitted(one, kept, 5)
    reached = float(np.trace(change.T @ one.penalised @ change)) / one.energy
    assert reached == pytest.approx(error(one, kept, 5), rel=1e-9)


def test_copies_and_silent_channels_go_first_and_cost_nothing() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6))
    x[:, 4] = x[:, 1] * 2
    x[:, 2] = 0
    weight = rng.normal(size=(6, 3))
    one = LinearReader(np.cov(x.T, bias=True), weight, 10.0)
    found = eliminate([one], 6)
    assert set(found.order[:2]) & {1, 4}
    assert set(found.order[:2]) - {1, 4} == {2}
    assert found.errors[2] < 0.01 < found.errors[3]


def test_greedy_choice_is_near_the_best_of_all_sets() -> None:
    for seed in range(5):
        one = reader(np.random.default_rng(seed), 7, 2, 4)
        found = eliminate([one], 7)
        best = min(error(one, np.array(kept), 7) for kept in combinations(range(7), 4))
        assert best - 1e-9 <= found.errors[3] <= 1.5 * best


def test_many_channels_go_several_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elimination, "_STEPS", 4)
    one = reader(np.random.default_rng(3), 12, 1, 4)
    found = eliminate([one], 12)
    assert sorted(found.order) == list(range(12))
    assert (np.diff(found.errors) >= 0).all()
    for gone in (3, 6, 9):
        assert found.errors[gone] == pytest.approx(error(one, found.kept(12 - gone), 12), rel=1e-6)

"""Intervals against SciPy's, and as often right as they claim."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from redtest_onnx.metrics.agreement.base import Measure
from redtest_onnx.metrics.agreement.classes import ClassMeasure
from redtest_onnx.metrics.agreement.embeddings import EmbeddingMeasure
from redtest_onnx.metrics.agreement.intervals import correlation_interval, mean_interval, share_interval
from redtest_onnx.metrics.agreement.next_token import NextTokenMeasure
from redtest_onnx.metrics.agreement.values import ValuesMeasure


@pytest.mark.parametrize(("right", "samples"), [(0, 3), (3, 3), (1, 4), (31, 32), (180, 200)])
def test_shares_have_wilsons_interval(right: int, samples: int) -> None:
    found = share_interval(right / samples, samples)
    expected = stats.binomtest(right, samples).proportion_ci(method="wilson")
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found is not None
    assert found[0] <= right / samples <= found[1]
    assert found[1] > found[0]  # also of none and of all


def test_no_samples_tell_nothing() -> None:
    assert share_interval(0.0, 0) is None
    assert mean_interval(1.0, 1.0, 1) is None
    assert mean_interval(0.0, float("nan"), 4) is None
    assert correlation_interval(0.5, 4) is None


@pytest.mark.parametrize("samples", [2, 4, 10, 11, 12, 40, 1000])
def test_means_have_students_interval(samples: int) -> None:
    mean, variance = 0.5, 1e-4
    found = mean_interval(mean, variance, samples)
    expected = stats.t.interval(0.95, samples - 1, 0, np.sqrt(variance / samples))
    assert found is not None
    np.testing.assert_allclose(np.subtract(found, mean), expected, rtol=4e-6)


def test_intervals_of_means_end_at_0_and_1() -> None:
    assert mean_interval(-4.0, 0.1, 8) == (0.0, 0.0)


def test_correlations_have_fishers_interval() -> None:
    assert correlation_interval(1.0, 10) == (1.0, 1.0)
    found = correlation_interval(0.8, 30)
    assert found is not None
    assert found[0] < 0.8 < found[1]
    assert np.arctanh(found[1]) - np.arctanh(0.8) == pytest.approx(1.959964 * np.sqrt(1.06 / 27))


def spoiled(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    values = random.normal(size=(count, 6))
    return values, values + random.normal(size=(count, 6)) * 0.7


@pytest.mark.parametrize("make", [ClassMeasure, ValuesMeasure, EmbeddingMeasure, NextTokenMeasure])
def test_an_interval_of_few_samples_holds_the_agreement_on_all(make: type[Measure]) -> None:
    random = np.random.default_rng(3)

    def measured(count: int) -> tuple[float, tuple[float, float]]:
        pair = spoiled(random, count)
        measure = make()
        measure.observe(pair[0])
        total = measure.start()
        total.add(*pair)
        found = total.result()
        assert found.agreement is not None
        assert found.interval is not None
        return found.agreement, found.interval

    truth, _ = measured(2000)
    ends = [measured(24)[1] for _ in range(100)]
    assert np.mean([low <= truth <= high for low, high in ends]) >= 0.9
    assert all(high - low > 0.01 for low, high in ends)


@pytest.mark.parametrize("masked", [False, True])
def test_values_have_the_interval_of_a_ratio_of_means(masked: bool) -> None:
    """Errors and spreads of the same samples, by the delta method in full."""
    random = np.random.default_rng(0)
    a = random.normal(size=(50, 7, 5)) * 3 + 100
    b = a + random.normal(size=a.shape)
    counted = random.random((50, 7)) < 0.6 if masked else None
    weight = np.ones(a.shape) if counted is None else np.broadcast_to(counted[..., None], a.shape)
    centre = a.mean(axis=0) if counted is None else (a * weight).sum(axis=(0, 1)) / weight.sum(axis=(0, 1))
    error, spread = ((weight * x * x).reshape(50, -1).sum(axis=1) for x in (a - b, a - centre))
    each = spread.sum() / weight.sum() * weight.reshape(50, -1).sum(axis=1)
    ratio = np.mean(error / each)
    part = error / each - ratio * spread / each
    half = stats.t.ppf(0.975, 49) * np.sqrt(np.square(part).sum() / 49 / 50)
    measure = ValuesMeasure()
    measure.observe(a, counted)
    total = measure.start()
    total.add(a, b, counted)
    found = total.result()
    assert found.agreement == pytest.approx(1 - ratio)
    assert found.interval == pytest.approx((1 - ratio - half, 1 - ratio + half))

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from redtest_onnx.errors import InputError
from redtest_onnx.metrics import pqi
from redtest_onnx.metrics.pqi import power_sums, pq_index, retained

PAIRS = [(0.5, 1.0), (1.0, 2.0), (0.05, 1.0), (0.1, 2.0), (1.0, 1.5)]

properties = settings(deadline=None, max_examples=60)
exponents = st.sampled_from(PAIRS)
weights = (
    st.lists(st.floats(-1e3, 1e3).map(lambda v: round(v, 3)), min_size=2, max_size=30)
    .filter(any)
    .map(np.array)
)


def slow_index(values: list[float], p: float, q: float) -> float:
    d = len(values)
    norm_p = math.fsum(abs(v) ** p for v in values) ** (1 / p)
    norm_q = math.fsum(abs(v) ** q for v in values) ** (1 / q)
    return 1 - d ** (1 / q - 1 / p) * norm_p / norm_q


def resolved(values: np.ndarray, pair: tuple[float, float]) -> float:
    """The index, where float64 tells it from 1: small exponents leave no more than (1/8)^19 of it."""
    index = pq_index(values, *pair)
    assume(index < 1 - 1e-9)
    return index


@properties
@given(weights, exponents)
def test_matches_the_formula(values: np.ndarray, pair: tuple[float, float]) -> None:
    assert pq_index(values, *pair) == pytest.approx(slow_index(values.tolist(), *pair), abs=1e-9)


@pytest.mark.parametrize(
    ("pair", "index", "share"), [((0.5, 1.0), 0.1528, 0.847), ((1.0, 2.0), 0.2021, 0.6366)]
)
def test_gaussian_weights(pair: tuple[float, float], index: float, share: float) -> None:
    values = np.random.default_rng(0).standard_normal(1_500_000).astype(np.float32)
    measured = pq_index(values, *pair)
    assert measured == pytest.approx(index, abs=1e-3)
    assert retained(values.size, measured, *pair) / values.size == pytest.approx(share, abs=2e-3)


@properties
@given(weights, exponents)
def test_between_zero_and_one(values: np.ndarray, pair: tuple[float, float]) -> None:
    assert 0 <= pq_index(values, *pair) <= 1


@properties
@given(weights, exponents, st.sampled_from([-1e250, -2.0, 1e-6, 0.3, 1e200]))
def test_unchanged_by_scale_and_sign(values: np.ndarray, pair: tuple[float, float], scale: float) -> None:
    assert pq_index(values * scale, *pair) == pytest.approx(pq_index(values, *pair), abs=1e-9)


@properties
@given(weights, exponents, st.randoms(use_true_random=False))
def test_unchanged_by_order(values: np.ndarray, pair: tuple[float, float], random: object) -> None:
    order = np.random.default_rng(random.randrange(1 << 32)).permutation(values.size)  # type: ignore[attr-defined]
    assert pq_index(values[order], *pair) == pytest.approx(pq_index(values, *pair), abs=1e-9)


@properties
@given(weights, exponents, st.integers(2, 4))
def test_unchanged_by_cloning(values: np.ndarray, pair: tuple[float, float], copies: int) -> None:
    assert pq_index(np.tile(values, copies), *pair) == pytest.approx(pq_index(values, *pair), abs=1e-9)


@properties
@given(weights, exponents, st.floats(0.05, 0.95))
def test_robin_hood_makes_it_less_sparse(values: np.ndarray, pair: tuple[float, float], part: float) -> None:
    """Taking from the largest and giving to the smallest, by less than their difference."""
    values = np.sort(np.abs(values))
    gift = part * (values[-1] - values[0]) / 2
    assume(gift > 1e-3 * values[-1])
    shared = values.copy()
    shared[0] += gift
    shared[-1] -= gift
    assert pq_index(shared, *pair) < resolved(values, pair)


@properties
@given(weights, exponents)
def test_rising_tide_makes_it_less_sparse(values: np.ndarray, pair: tuple[float, float]) -> None:
    values = np.abs(values)
    assume(np.ptp(values) > 1e-2 * values.max())
    assert pq_index(values + values.max(), *pair) < resolved(values, pair)


@properties
@given(weights, exponents)
def test_bill_gates_makes_it_more_sparse(values: np.ndarray, pair: tuple[float, float]) -> None:
    """Once one weight is large enough, growing it further makes the group sparser."""
    values = np.abs(values)
    richer, richest = values.copy(), values.copy()
    richer[0] = 100 * values.max() * values.size
    richest[0] = 2 * richer[0]
    assume(values[1:].any())
    assert pq_index(richest, *pair) > resolved(richer, pair)


@properties
@given(weights, exponents)
def test_babies_make_it_more_sparse(values: np.ndarray, pair: tuple[float, float]) -> None:
    assert pq_index(np.append(values, 0.0), *pair) > resolved(values, pair)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(("kept", "size"), [(1, 7), (3, 10), (123, 1000), (1000, 1000)])
def test_equal_weights_among_zeros(pair: tuple[float, float], kept: int, size: int) -> None:
    """1 - I = (k/d)^(1/p - 1/q), and the bound retains exactly the k weights."""
    values = np.zeros(size)
    values[:kept] = -0.3
    index = pq_index(values, *pair)
    assert index == pytest.approx(1 - (kept / size) ** (1 / pair[0] - 1 / pair[1]), abs=1e-12)
    assert power_sums(values, *pair).retained() == kept


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("values", [[3.0], [0.1, -0.1, 0.1], [5e-324] * 7, [1.7e308, -1.7e308]])
def test_equal_magnitudes_are_exactly_zero(pair: tuple[float, float], values: list[float]) -> None:
    index = pq_index(np.array(values), *pair)
    assert index == 0
    assert math.copysign(1, index) == 1
    assert retained(len(values), index, *pair) == len(values)


def test_rounding_never_makes_it_negative() -> None:
    assert pq_index(np.array([0.3, np.nextafter(0.3, 0)]), 0.5, 1.0) == 0


@pytest.mark.parametrize("pair", PAIRS)
def test_the_whole_range_of_float64(pair: tuple[float, float]) -> None:
    values = np.array([1.7e308, 1e300, 1.0, 1e-300, 5e-324])
    index = pq_index(values, *pair)
    assert 0 < index < 1
    assert index == pytest.approx(pq_index(values / 1e250, *pair), rel=1e-3)


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [1.0, np.nan], [np.inf, 1.0]])
def test_groups_without_an_index_are_undefined(values: list[float]) -> None:
    index = pq_index(np.array(values), 0.5, 1.0)
    assert math.isnan(index)
    assert math.isnan(retained(len(values), index, 0.5, 1.0))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8, np.uint8])
def test_any_real_dtype_is_computed_in_float64(dtype: type) -> None:
    values = np.arange(1, 100).astype(dtype)
    assert pq_index(values, 0.05, 1.0) == pytest.approx(pq_index(np.arange(1.0, 100.0), 0.05, 1.0), rel=1e-12)


def test_int8_minimum_has_its_real_magnitude() -> None:
    assert pq_index(np.array([-128, 127], np.int8), 1.0, 2.0) < 1e-4


@pytest.mark.parametrize("axis", [0, 1, -1, (1, 2), (0, 2)])
def test_groups_along_axes(axis: int | tuple[int, ...]) -> None:
    values = np.random.default_rng(0).standard_normal((4, 3, 5))
    values[2] = 0
    index = pq_index(values, 0.5, 1.0, axis=axis)
    axes = {a % 3 for a in np.atleast_1d(axis)}
    kept = [a for a in range(3) if a not in axes]
    groups = values.transpose([*kept, *axes]).reshape(*(values.shape[a] for a in kept), -1)
    assert index.shape == groups.shape[:-1]
    expected = np.array([pq_index(group, 0.5, 1.0) for group in groups.reshape(-1, groups.shape[-1])])
    np.testing.assert_allclose(index.ravel(), expected, rtol=1e-12)


def test_empty_groups_along_an_axis() -> None:
    assert np.isnan(pq_index(np.zeros((3, 0)), 0.5, 1.0, axis=1)).all()
    assert pq_index(np.zeros((0, 3)), 0.5, 1.0, axis=1).shape == (0,)


@pytest.mark.parametrize("axis", [None, 1])
def test_masked_entries_do_not_count(axis: int | None) -> None:
    rng = np.random.default_rng(0)
    values, mask = rng.standard_normal((1, 50)), rng.random((1, 50)) < 0.4
    values[~mask] = np.inf
    expected = pq_index(values[mask], 1.0, 2.0)
    assert np.squeeze(pq_index(values, 1.0, 2.0, axis, mask)) == pytest.approx(expected, rel=1e-12)


def test_a_fully_masked_group_is_undefined() -> None:
    assert math.isnan(pq_index(np.ones(5), 1.0, 2.0, mask=np.zeros(5, bool)))


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match="does not fit"):
        pq_index(np.ones((2, 3)), 1.0, 2.0, mask=np.ones((3, 2), bool))


def test_large_tensors_are_summed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal((3, 50)) * np.geomspace(1e-5, 1e5, 50)
    mask = values > 0
    whole = pq_index(values, 0.1, 1.0, mask=mask)
    monkeypatch.setattr(pqi, "_BLOCK_ELEMENTS", 7)
    assert pq_index(values, 0.1, 1.0, mask=mask) == pytest.approx(whole, rel=1e-12)


def test_groups_spread_over_tensors_are_merged() -> None:
    parts = [np.random.default_rng(i).standard_normal(20) * 10.0**i for i in range(3)]
    parts.append(np.zeros(9))
    total = power_sums(parts[0], 0.5, 1.0)
    for part in parts[1:]:
        total = total.merged(power_sums(part, 0.5, 1.0))
    assert total.count == 69
    assert total.index == pytest.approx(pq_index(np.concatenate(parts), 0.5, 1.0), rel=1e-12)


def test_inputs_are_left_alone() -> None:
    values = np.array([1.0, -2.0, 3.0])
    pq_index(values, 1.0, 2.0, mask=np.array([True, False, True]))
    np.testing.assert_array_equal(values, [1.0, -2.0, 3.0])


@pytest.mark.parametrize(
    ("p", "q"), [(1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (1.0, math.inf), (math.nan, 1.0)]
)
def test_exponents_must_be_ordered(p: float, q: float) -> None:
    with pytest.raises(InputError, match="0 < p < q"):
        pq_index(np.ones(3), p, q)
    with pytest.raises(InputError, match="0 < p < q"):
        retained(3, 0.0, p, q)


@properties
@given(weights, exponents)
def test_no_fewer_stay_than_the_bound_says(values: np.ndarray, pair: tuple[float, float]) -> None:
    """Theorem 3.3, for each number of largest weights, with eta as it defines it."""
    p, q = pair
    powers = np.sort(np.abs(values))[::-1] ** p
    assume(powers[0] > 0)
    sums = power_sums(values, p, q)
    for kept in range(1, len(powers)):
        eta = powers[kept:].sum() / powers[:kept].sum()
        assert kept >= sums.retained(eta * (1 + 1e-9))


def test_retained_follows_the_formula_with_eta() -> None:
    expected = math.ceil(1000 * 1.1 ** (-1 / 0.5) * (1 - 0.3) ** 1.0)
    assert retained(1000, 0.3, 0.5, 1.0, eta=0.1) == expected
    np.testing.assert_array_equal(retained([10, 1000], [0.0, 0.3], 0.5, 1.0), [10, 700])


def test_retained_from_the_index_agrees_with_retained_from_the_sums() -> None:
    values = np.random.default_rng(0).laplace(size=(5, 200))
    sums = power_sums(values, 0.5, 1.0, axis=1)
    np.testing.assert_array_equal(retained(sums.count, sums.index, 0.5, 1.0, eta=0.2), sums.retained(eta=0.2))


def test_a_group_with_weights_retains_at_least_one() -> None:
    assert pq_index(np.eye(1, 1000), 0.05, 1.0) == 1
    assert retained(1000, 1.0, 0.05, 1.0) == 1


def test_retained_never_exceeds_the_group() -> None:
    assert retained(10, 0.0, 0.5, 1.0, eta=-0.5) == 10


@pytest.mark.parametrize("eta", [-1.0, -2.0, math.nan, math.inf])
def test_eta_must_be_above_minus_one(eta: float) -> None:
    with pytest.raises(InputError, match="eta"):
        retained(10, 0.1, 0.5, 1.0, eta)


@pytest.mark.parametrize("pair", PAIRS)
def test_groups_taken_together_are_one_group(pair: tuple[float, float]) -> None:
    rng = np.random.default_rng(4)
    parts = [rng.normal(size=(3, 8)) * scale for scale in (1.0, 1e-3, 50.0)]
    parts.append(np.zeros((2, 5)))
    stacked = pqi.PowerSums.stacked([power_sums(part, *pair, axis=1) for part in parts])
    assert stacked.count.tolist() == [8] * 9 + [5] * 2
    np.testing.assert_allclose(stacked.index[:3], pq_index(parts[0], *pair, axis=1))
    whole = np.concatenate([part.ravel() for part in parts])
    assert stacked.pooled().index == pytest.approx(pq_index(whole, *pair))
    assert stacked.pooled().count == whole.size
    assert np.isnan(power_sums(np.zeros((0, 3)), *pair, axis=1).pooled().index)

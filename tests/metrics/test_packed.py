from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from references import hsic_matrix, packed

from redtest_onnx.errors import InputError
from redtest_onnx.metrics.grams import linear_gram
from redtest_onnx.metrics.packed import PackedGrams


def grams_of(seed: int, layers: int, samples: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([linear_gram(rng.standard_normal((samples, 3))) for _ in range(layers)])


@given(st.integers(0, 99), st.integers(1, 5), st.integers(4, 12), st.booleans())
def test_products_are_those_of_the_whole_matrices(seed: int, layers: int, n: int, unbiased: bool) -> None:
    grams = grams_of(seed, layers, n)
    found = packed(grams, unbiased=unbiased)
    expected = hsic_matrix(grams, unbiased=unbiased)
    np.testing.assert_allclose(found.hsic(), expected, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(found.own_hsic(), np.diagonal(expected), rtol=1e-10)
    assert found.rows.shape == (layers, n * (n - 1) // 2 + (0 if unbiased else n))


@given(st.integers(0, 99), st.integers(4, 12), st.booleans())
def test_another_order_of_samples(seed: int, n: int, unbiased: bool) -> None:
    grams = grams_of(seed, 3, n)
    order = np.random.default_rng(seed).permutation(n)
    found = packed(grams, unbiased=unbiased).permuted([(np.array([2, 0]), order)])
    expected = packed(grams[[2, 0]][:, order[:, None], order], unbiased=unbiased)
    np.testing.assert_allclose(found.rows, expected.rows, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.sums, expected.sums, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.own_hsic(), expected.own_hsic(), rtol=1e-9)


@given(st.integers(0, 99), st.integers(4, 12), st.booleans())
def test_what_centring_takes_away_changes_nothing(seed: int, n: int, unbiased: bool) -> None:
    grams = grams_of(seed, 3, n)
    shift = np.random.default_rng(seed).standard_normal((3, n, 1))
    found = packed(grams + shift + shift.swapaxes(1, 2), unbiased=unbiased)
    np.testing.assert_allclose(found.hsic(), packed(grams, unbiased=unbiased).hsic(), rtol=1e-8, atol=1e-11)


@given(st.integers(0, 99), st.integers(7, 12), st.booleans())
def test_without_some_samples(seed: int, n: int, unbiased: bool) -> None:
    rng = np.random.default_rng(seed)
    features = [rng.standard_normal((n, 3)) for _ in range(3)]
    left_out = rng.choice(n, 3, replace=False)
    features[1][left_out] *= 50
    kept = np.setdiff1d(np.arange(n), left_out)
    found = packed(np.stack(list(map(linear_gram, features))), unbiased=unbiased).hsic_without(left_out)
    expected = packed(np.stack([linear_gram(x[kept]) for x in features]), unbiased=unbiased)
    np.testing.assert_allclose(found, expected.hsic(), rtol=1e-6, atol=1e-8)


def test_what_large_samples_hide_is_undefined() -> None:
    features = np.random.default_rng(0).standard_normal((20, 3))
    features[[2, 5]] *= 1e9
    found = packed(linear_gram(features)[None]).hsic_without(np.array([2, 5]))
    assert np.isnan(found).all()


def test_too_few_others_are_refused() -> None:
    with pytest.raises(InputError, match="without 3 of 6 samples too few"):
        packed(grams_of(0, 2, 6)).hsic_without(np.arange(3))


def test_two_sets_of_layers() -> None:
    grams = grams_of(0, 5, 9)
    found = packed(grams[:2]).hsic(packed(grams[2:]))
    np.testing.assert_allclose(found, hsic_matrix(grams[:2], grams[2:]), rtol=1e-12)


def test_a_layer_that_does_not_vary_is_undefined() -> None:
    grams = grams_of(0, 3, 8)
    grams[1] = 0
    found = packed(grams)
    np.testing.assert_array_equal(np.isnan(found.own_hsic()), [False, True, False])
    np.testing.assert_array_equal(np.isnan(found.hsic()).sum(axis=0), [1, 3, 1])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_layer_that_is_not_finite_is_undefined(value: float) -> None:
    grams = grams_of(0, 3, 8)
    grams[1] = value
    found = packed(grams)
    for hsic in (found.hsic(), found.hsic_without(np.array([2]))):
        np.testing.assert_array_equal(np.isnan(hsic).sum(axis=0), [1, 3, 1])


def test_leaving_no_sample_out_changes_nothing() -> None:
    found = packed(grams_of(0, 3, 8))
    np.testing.assert_allclose(found.hsic_without(np.array([], np.int64)), found.hsic(), rtol=1e-12)


def test_one_buffer_serves_all_layers() -> None:
    grams = grams_of(0, 3, 8)
    buffer = np.empty((8, 8))

    def read() -> object:
        for gram in grams:
            buffer[...] = gram
            yield buffer

    np.testing.assert_array_equal(PackedGrams.of(read(), 3, 8).rows, packed(grams).rows)  # type: ignore[arg-type]


def test_different_numbers_of_samples_are_refused() -> None:
    with pytest.raises(InputError, match="on 8 and on 9 samples"):
        packed(grams_of(0, 2, 8)).hsic(packed(grams_of(0, 2, 9)))


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(InputError, match="at least 4 samples"):
        packed(np.ones((2, 3, 3)))

from __future__ import annotations

import math

import numpy as np
import pytest

from redtest_onnx.errors import InputError
from redtest_onnx.metrics import grams
from redtest_onnx.metrics.grams import centre, centred_norms, flatten, linear_gram, rbf_gram, rbf_of_linear


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((9, 7)) + 3


def slow_gram(features: np.ndarray) -> np.ndarray:
    rows = [[float(v) for v in row] for row in features]
    means = [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
    centred = [[v - m for v, m in zip(row, means, strict=True)] for row in rows]
    return np.array([[math.fsum(a * b for a, b in zip(x, y, strict=True)) for y in centred] for x in centred])


def test_linear_gram_of_float64_is_exact(features: np.ndarray) -> None:
    np.testing.assert_allclose(linear_gram(features), slow_gram(features), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.uint8, np.int64, np.bool_])
def test_linear_gram_takes_any_real_dtype(dtype: type, features: np.ndarray) -> None:
    values = (features * 20).astype(dtype) if dtype != np.bool_ else features > 3
    gram = linear_gram(values)
    assert gram.dtype == np.float64
    exact = slow_gram(values)
    np.testing.assert_allclose(gram, exact, atol=1e-6 * np.abs(exact).max())


def test_blocks_of_features_add_up(features: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = linear_gram(features)
    monkeypatch.setattr(grams, "_BLOCK_ELEMENTS", 18)  # two of the seven features at a time
    np.testing.assert_allclose(linear_gram(features), whole, rtol=1e-13)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_squares_outside_float32_are_kept(scale: float, features: np.ndarray) -> None:
    values = (features * scale).astype(np.float32)
    np.testing.assert_allclose(linear_gram(values), slow_gram(values), rtol=1e-5, atol=1e-5 * scale**2)


def test_centring_keeps_float32_exact_under_a_shared_mean(features: np.ndarray) -> None:
    values = (features + 1e4).astype(np.float32)
    np.testing.assert_allclose(linear_gram(values), slow_gram(values), atol=2e-5)


def test_rounding_noise_on_a_constant_feature_becomes_zero(features: np.ndarray) -> None:
    noise = np.random.default_rng(1).uniform(-1e-6, 1e-6, features.shape)
    assert not centre((5 + noise).astype(np.float32)).any()
    assert centre(5 + noise).any()  # in float64 the same variation is real


def test_a_large_constant_feature_does_not_hide_a_small_varying_one(features: np.ndarray) -> None:
    values = np.concatenate([np.full((9, 1), 1e6), features * 0.1], axis=1).astype(np.float32)
    np.testing.assert_allclose(linear_gram(values), slow_gram(values[:, 1:]), rtol=1e-5, atol=1e-7)


def test_not_finite_features_give_nan(features: np.ndarray) -> None:
    features[2, 3] = np.inf
    assert np.isnan(linear_gram(features)).all()
    assert np.isnan(rbf_gram(features)).any()


def test_no_features_give_a_zero_gram() -> None:
    assert not linear_gram(np.zeros((5, 0))).any()


@pytest.mark.parametrize("shape", [(5,), (5, 2, 2), (0, 3)])
def test_features_must_be_a_matrix(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="at least one sample"):
        linear_gram(np.zeros(shape))


def test_flatten_keeps_the_sample_axis() -> None:
    assert flatten(np.zeros((4, 2, 3, 5))).shape == (4, 30)
    assert flatten(np.zeros(4)).shape == (4, 1)
    assert flatten(np.zeros((0, 2, 3))).shape == (0, 6)
    with pytest.raises(InputError, match="sample axis"):
        flatten(np.float64(1))


@pytest.mark.parametrize("bandwidth", [0.4, 1.0, 2.0])
def test_rbf_gram_follows_the_median_rule(bandwidth: float, features: np.ndarray) -> None:
    n = len(features)
    distances = [[math.dist(features[i], features[j]) for j in range(n)] for i in range(n)]
    sigma = bandwidth * float(np.median([distances[i][j] for i in range(n) for j in range(i)]))
    expected = [[math.exp(-(d**2) / (2 * sigma**2)) for d in row] for row in distances]
    np.testing.assert_allclose(rbf_gram(features, bandwidth), expected, rtol=1e-12)


def test_rbf_gram_where_most_samples_coincide(features: np.ndarray) -> None:
    features[2:] = features[2]
    gram = rbf_gram(features)
    np.testing.assert_array_equal(gram[2:, 2:], 1)
    distances = [math.dist(x, y) for x in features for y in features]
    sigma = sum(distances) / (9 * 8)
    assert gram[0, 1] == pytest.approx(math.exp(-(math.dist(features[0], features[1]) ** 2) / (2 * sigma**2)))


def test_rbf_gram_of_samples_within_rounding_of_each_other() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((30, 400))
    features[2:] = features[2] + 1e-9 * rng.standard_normal((28, 400))
    np.testing.assert_array_equal(rbf_gram(features)[2:, 2:], 1)


def test_rbf_gram_of_a_constant_layer_is_one() -> None:
    noise = np.random.default_rng(1).uniform(-1e-6, 1e-6, (6, 4))
    np.testing.assert_array_equal(rbf_gram((5 + noise).astype(np.float32)), 1)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan, math.inf])
def test_rbf_bandwidth_must_be_positive(bandwidth: float, features: np.ndarray) -> None:
    with pytest.raises(InputError, match="bandwidth"):
        rbf_gram(features, bandwidth)
    with pytest.raises(InputError, match="bandwidth"):
        rbf_of_linear(linear_gram(features), bandwidth)


@pytest.mark.parametrize("bandwidth", [0.4, 1.0, 2.0])
def test_rbf_gram_can_be_had_from_the_linear_one(bandwidth: float, features: np.ndarray) -> None:
    found = rbf_of_linear(linear_gram(features), bandwidth)
    np.testing.assert_allclose(found, rbf_gram(features, bandwidth), rtol=1e-12)
    np.testing.assert_allclose(rbf_of_linear(linear_gram(features)), rbf_gram(features), rtol=1e-12)
    np.testing.assert_array_equal(rbf_gram(features), rbf_gram(features, 1.0))


def test_rbf_needs_two_samples() -> None:
    with pytest.raises(InputError, match="two samples"):
        rbf_gram(np.zeros((1, 3)))


def test_norms_of_centred_samples_from_any_gram() -> None:
    features = np.random.default_rng(0).standard_normal((9, 4)) + 3
    expected = np.square(features - features.mean(axis=0)).sum(axis=1)
    np.testing.assert_allclose(centred_norms(features @ features.T), expected, rtol=1e-12)


def test_a_gram_is_centred_afterwards(features: np.ndarray) -> None:
    shifted = features @ features.T
    assert grams.centre_gram(shifted) is shifted
    np.testing.assert_allclose(shifted, slow_gram(features), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(centred_norms(features @ features.T), np.diagonal(shifted), atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_of_a_constant_is_told_from_values(dtype: type) -> None:
    rng = np.random.default_rng(0)
    level, features = 30.0, 400
    constant = (level * (1 + rng.uniform(-1, 1, (50, features)) * np.finfo(dtype).eps)).astype(dtype)
    centred = constant.astype(np.float64) - constant.astype(np.float64).mean(axis=0)
    assert grams.only_rounding(np.square(centred).sum(axis=1).max(), level, features, dtype)
    varied = level * np.sqrt(np.finfo(dtype).eps)  # far above rounding, far below the level
    assert not grams.only_rounding(features * varied**2, level, features, dtype)

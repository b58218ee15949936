"""Situations in which other tools for CKA are known to print wrong numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from references import packed

from redtest_onnx.errors import InputError
from redtest_onnx.metrics.cka import cka, combine
from redtest_onnx.metrics.exact import full_hsic
from redtest_onnx.metrics.grams import linear_gram, rbf_gram


def related_pair(seed: int, n: int = 256, p: int = 64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p))
    return x, x @ rng.standard_normal((p, p)) / 8 + 0.5 * rng.standard_normal((n, p))


def hsic_of(*layers: np.ndarray) -> np.ndarray:
    return packed(np.stack([linear_gram(x) for x in layers])).hsic()


def similarity(*layers: np.ndarray) -> np.ndarray:
    return cka(hsic_of(*layers))


@pytest.mark.parametrize("shift", [3, 10, 100, 1e3, 1e4])
def test_a_mean_shared_by_float32_features_does_not_cancel(shift: float) -> None:
    x, y = related_pair(0)
    shifted = similarity((x + shift).astype(np.float32), (y + shift).astype(np.float32))[0, 1]
    # Beyond the product, float32 rounds the shifted features themselves.
    assert shifted == pytest.approx(similarity(x, y)[0, 1], abs=1e-7 * max(1.0, shift / 10))


def test_float32_agrees_with_float64() -> None:
    rng = np.random.default_rng(0)
    layers = [np.maximum(rng.standard_normal((64, 3000)) + rng.standard_normal((64, 1)), 0) for _ in range(5)]
    single = [x.astype(np.float32) for x in layers]
    exact = similarity(*(x.astype(np.float64) for x in single))
    assert np.abs(similarity(*single) - exact).max() < 1e-7


def test_independent_layers_scatter_around_zero_unclamped() -> None:
    rng = np.random.default_rng(0)
    values = np.array(
        [similarity(rng.standard_normal((32, 500)), rng.standard_normal((32, 500)))[0, 1] for _ in range(100)]
    )
    assert (values < 0).sum() > 25
    assert abs(values.mean()) < 3 * values.std() / 10


def test_biased_estimate_of_independent_wide_layers_is_near_one() -> None:
    """Why the unbiased one is the default."""
    rng = np.random.default_rng(0)
    grams = np.stack([linear_gram(rng.standard_normal((64, 1024))) for _ in range(2)])
    biased = cka(packed(grams, unbiased=False).hsic())[0, 1]
    assert biased > 0.9
    assert abs(cka(packed(grams).hsic())[0, 1]) < 0.1


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 0.01, 0.1, 1e3, 1e12])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_epsilon_damps_small_activations(scale: float, dtype: type) -> None:
    x, y = related_pair(1)
    scaled = similarity((x * scale).astype(dtype), (y * scale).astype(dtype))
    np.testing.assert_allclose(scaled, similarity(x, y), atol=1e-6)
    np.testing.assert_array_equal(scaled.diagonal(), 1)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 1e4, 0.1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_layers_are_undefined(value: float, dtype: type) -> None:
    x, y = (layer.astype(dtype) for layer in related_pair(2))
    matrix = similarity(x, np.full_like(x, value), y)
    assert np.isnan(matrix[1]).all()
    assert np.isnan(matrix[:, 1]).all()
    np.testing.assert_allclose(matrix[np.ix_([0, 2], [0, 2])], similarity(x, y), rtol=1e-12)
    assert np.isnan(full_hsic([x, np.full_like(x, value)])[0, 1])


@pytest.mark.parametrize("kernel", [linear_gram, rbf_gram])
def test_rounding_noise_does_not_make_a_constant_layer_defined(
    kernel: Callable[[np.ndarray], np.ndarray],
) -> None:
    x, _ = related_pair(3)
    rng = np.random.default_rng(0)
    noisy = (rng.standard_normal(64) * (1 + rng.uniform(-2e-7, 2e-7, (256, 64)))).astype(np.float32)
    matrix = cka(packed(np.stack([kernel(x), kernel(noisy)])).hsic())
    assert np.isnan(matrix[1]).all()
    assert np.isnan(full_hsic([x, noisy])[0, 1])


def test_rounding_noise_in_an_uncentred_float32_gram_is_seen_as_constant() -> None:
    x, _ = related_pair(4)
    rng = np.random.default_rng(0)
    noisy = (3 + rng.uniform(-1e-6, 1e-6, (256, 64))).astype(np.float32)
    found = packed(np.stack([x @ x.T, noisy @ noisy.T]))
    assert (found.norms > 0).tolist() == [True, False]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_layers_that_are_not_finite_are_undefined_and_spoil_no_other(bad: float) -> None:
    x, y = related_pair(5)
    spoiled = x.copy()
    spoiled[3, 2] = bad
    matrix = similarity(x, spoiled, y)
    assert np.isnan(matrix[1]).all()
    np.testing.assert_allclose(matrix[np.ix_([0, 2], [0, 2])], similarity(x, y), rtol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_batches_too_small_for_the_estimator_are_refused(n: int) -> None:
    with pytest.raises(InputError, match=rf"at least 4 samples in a batch, got {n}"):
        packed(np.ones((1, n, n)))
    with pytest.raises(InputError, match="at least four"):
        full_hsic([np.ones((n, 2))])


def test_four_samples_are_enough() -> None:
    x, y = related_pair(6, n=4)
    assert np.isfinite(similarity(x, y)).all()


def test_the_biased_estimator_takes_two_samples_but_not_one() -> None:
    assert packed(np.eye(2)[None], unbiased=False).norms.any()
    with pytest.raises(InputError, match="at least 2 samples"):
        packed(np.ones((1, 1, 1)), unbiased=False)


def test_the_estimator_does_not_switch_with_the_number_of_samples() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 257, 512))
    assert abs(similarity(x[:256], y[:256])[0, 1] - similarity(x, y)[0, 1]) < 0.02


@pytest.mark.parametrize("layers", [2, 7])
@pytest.mark.parametrize("batches", [1, 4])
def test_the_diagonal_is_one_whatever_the_number_of_layers_and_batches(layers: int, batches: int) -> None:
    rng = np.random.default_rng(0)
    hsic = np.stack([hsic_of(*rng.standard_normal((layers, 16, 5))) for _ in range(batches)])
    for estimator in ("minibatch", "paper"):
        np.testing.assert_array_equal(combine(hsic, estimator).diagonal(), 1)  # type: ignore[arg-type]


def test_every_batch_counts() -> None:
    x, y = related_pair(7, n=64)
    hsic = np.stack([hsic_of(x[i : i + 16], y[i : i + 16]) for i in range(0, 64, 16)])
    for estimator in ("minibatch", "paper"):
        matrices = [combine(np.roll(hsic, k, axis=0), estimator) for k in range(4)]  # type: ignore[arg-type]
        for matrix in matrices[1:]:
            np.testing.assert_allclose(matrix, matrices[0], rtol=1e-12)
        assert abs(matrices[0] - cka(hsic[-1]))[0, 1] > 1e-3


def test_minibatch_estimate_does_not_depend_on_the_batch_size_in_expectation() -> None:
    x, y = related_pair(8, n=2048, p=16)
    whole = similarity(x, y)[0, 1]
    for size in (16, 64):
        hsic = np.stack([hsic_of(x[i : i + size], y[i : i + size]) for i in range(0, 2048, size)])
        assert combine(hsic)[0, 1] == pytest.approx(whole, abs=0.02)

from __future__ import annotations

import math

import numpy as np
import pytest
from references import hsic_matrix, packed

from redtest_onnx.errors import InputError
from redtest_onnx.metrics.cka import Estimator, cka, combine
from redtest_onnx.metrics.grams import linear_gram
from redtest_onnx.metrics.msrs import msrs
from redtest_onnx.metrics.statistics import largest_samples, norm_shares, shuffled_null, standard_errors


def layers_of(rng: np.random.Generator, n: int = 32, count: int = 3, p: int = 6) -> list[np.ndarray]:
    common = rng.standard_normal((n, p))
    return [common + rng.standard_normal((n, p)) for _ in range(count)]


def grams_of(layers: list[np.ndarray]) -> np.ndarray:
    return np.stack([linear_gram(x) for x in layers])


def batches_of(seed: int, batches: int = 8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([packed(grams_of(layers_of(rng))).hsic() for _ in range(batches)])


def test_error_of_the_papers_mean() -> None:
    hsic = batches_of(0)
    result = standard_errors(hsic, "paper", alpha=5.0, threshold=0.5)
    matrices = [cka(h) for h in hsic]
    scores = [msrs(m, 5.0, 0.5).value for m in matrices]
    np.testing.assert_allclose(result.cka, np.std(matrices, axis=0, ddof=1) / math.sqrt(8), rtol=1e-10)
    assert result.msrs == pytest.approx(np.std(scores, ddof=1) / math.sqrt(8))
    assert result.batches == 8


def test_jackknife_of_the_ratio_of_sums() -> None:
    hsic = batches_of(0)
    result = standard_errors(hsic, "minibatch", alpha=5.0, threshold=0.5)
    left_out = [combine(np.delete(hsic, i, axis=0)) for i in range(8)]
    mean = sum(left_out) / 8
    expected = np.sqrt(7 / 8 * sum((m - mean) ** 2 for m in left_out))
    np.testing.assert_allclose(result.cka, expected, rtol=1e-9, atol=1e-15)
    scores = np.array([msrs(m, 5.0, 0.5).value for m in left_out])
    assert result.msrs == pytest.approx(math.sqrt(7 / 8 * ((scores - scores.mean()) ** 2).sum()))


@pytest.mark.parametrize("estimator", ["minibatch", "paper"])
def test_errors_predict_the_scatter_of_repeated_measurements(estimator: Estimator) -> None:
    runs = [batches_of(seed) for seed in range(60)]
    scatter = np.std([combine(hsic, estimator)[0, 1] for hsic in runs], ddof=1)
    errors = [standard_errors(hsic, estimator).cka[0, 1] for hsic in runs]
    assert np.mean(errors) == pytest.approx(scatter, rel=0.3)


@pytest.mark.parametrize("estimator", ["minibatch", "paper"])
def test_one_batch_tells_no_error(estimator: Estimator) -> None:
    result = standard_errors(batches_of(0, batches=1), estimator)
    assert np.isnan(result.cka).all()
    assert math.isnan(result.msrs)


@pytest.mark.parametrize("estimator", ["minibatch", "paper"])
def test_a_layer_defined_in_one_batch_only_has_no_error(estimator: Estimator) -> None:
    hsic = batches_of(0)
    hsic[1:, 2] = hsic[1:, :, 2] = np.nan
    errors = standard_errors(hsic, estimator).cka
    assert np.isnan(errors[2]).all()
    assert np.isfinite(errors[:2, :2]).all()


@pytest.mark.parametrize("estimator", ["minibatch", "paper"])
def test_a_layer_undefined_in_one_batch_still_has_an_error(estimator: Estimator) -> None:
    hsic = batches_of(0)
    hsic[0, 2] = hsic[0, :, 2] = np.nan
    errors = standard_errors(hsic, estimator).cka
    if estimator == "paper":
        expected = standard_errors(hsic[1:], estimator).cka[2]
    else:
        left_out = np.array([combine(np.delete(hsic, i, axis=0))[2] for i in range(8)])
        expected = np.sqrt(7 * left_out.var(axis=0))
    np.testing.assert_allclose(errors[2], expected, rtol=1e-9, atol=1e-15)


def test_no_batches_are_refused() -> None:
    with pytest.raises(InputError, match="no batch"):
        standard_errors(np.zeros((0, 3, 3)))


def test_null_of_each_layer_with_permuted_others() -> None:
    grams = grams_of(layers_of(np.random.default_rng(0)))
    result = shuffled_null(packed(grams), np.random.default_rng(1), repeats=2)
    rng, values = np.random.default_rng(1), np.full((2, 3, 3), np.nan)
    for repeat in range(2):
        order = rng.permutation(32)
        for i in range(3):
            for j in set(range(3)) - {i}:
                pair = np.stack([grams[i], grams[j][np.ix_(order, order)]])
                values[repeat, i, j] = cka(hsic_matrix(pair))[0, 1]
    assert result.mean == pytest.approx(np.nanmean(values))
    assert result.quantile95 == pytest.approx(np.nanquantile(values, 0.95))
    assert result.repeats == 2


def test_null_is_about_zero_where_the_real_similarity_is_high() -> None:
    grams = packed(grams_of(layers_of(np.random.default_rng(0), n=128, count=5)))
    result = shuffled_null(grams, np.random.default_rng(0), repeats=10)
    assert abs(result.mean) < 0.01
    assert 0 < result.quantile95 < 0.1
    assert cka(grams.hsic())[0, 1] > 0.2


def test_null_of_many_layers_is_estimated_from_a_few() -> None:
    grams = packed(grams_of(layers_of(np.random.default_rng(0), n=64, count=40)))
    result = shuffled_null(grams, np.random.default_rng(0), repeats=10)
    assert abs(result.mean) < 0.02
    assert 0 < result.quantile95 < 0.2


def test_undefined_layers_have_no_part_in_the_null() -> None:
    layers = layers_of(np.random.default_rng(0))
    layers[1] = np.ones((32, 6))
    result = shuffled_null(packed(grams_of(layers)), np.random.default_rng(0))
    assert math.isfinite(result.mean)
    layers = [np.ones((32, 6))] * 3
    assert math.isnan(shuffled_null(packed(grams_of(layers)), np.random.default_rng(0)).quantile95)


def test_null_needs_a_permutation() -> None:
    with pytest.raises(InputError, match="at least one permutation, got 0"):
        shuffled_null(packed(np.zeros((2, 8, 8))), np.random.default_rng(0), repeats=0)


def norms_of(layers: list[np.ndarray]) -> np.ndarray:
    return np.stack([np.square(x - x.mean(axis=0)).sum(axis=1) for x in layers])


def test_a_few_samples_of_large_norm_dominate_their_layers() -> None:
    layers = layers_of(np.random.default_rng(0), n=200, count=4)
    for layer in layers[1:3]:
        layer[[7, 90]] += 100
    norms = norms_of(layers)
    share, dominated = norm_shares(norms)
    assert dominated == (1, 2)
    assert (share[1:3] > 0.9).all()
    assert largest_samples(norms, dominated).tolist() == [7, 90]


def test_largest_samples_are_those_of_any_dominated_layer() -> None:
    layers = layers_of(np.random.default_rng(0), n=50, count=3)
    layers[0][3] *= 30
    layers[1][9] *= 30
    norms = norms_of(layers)
    _, dominated = norm_shares(norms)
    assert dominated == (0, 1)
    assert largest_samples(norms, dominated).tolist() == [3, 9]


def test_share_is_that_of_the_centred_squared_norms() -> None:
    norms = norms_of(layers_of(np.random.default_rng(0), n=250, count=2))
    share, dominated = norm_shares(norms)
    np.testing.assert_allclose(share, np.sort(norms, axis=1)[:, -2:].sum(axis=1) / norms.sum(axis=1))
    assert dominated == ()


def test_share_of_a_constant_layer_is_undefined() -> None:
    share, _ = norm_shares(np.array([[1.0, 2, 1, 1], [0, 0, 0, 0]]))
    np.testing.assert_array_equal(np.isnan(share), [False, True])

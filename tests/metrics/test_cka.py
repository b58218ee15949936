from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references import packed

from redtest_onnx.errors import InputError
from redtest_onnx.metrics import cka as cka_module
from redtest_onnx.metrics.cka import (
    cka,
    combine,
    cross_cka,
)
from redtest_onnx.metrics.grams import linear_gram, rbf_gram

Layers = list[np.ndarray]

properties = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**32 - 1)


def random_layers(seed: int = 0, n: int = 9, widths: tuple[int, ...] = (3, 5, 8, 20)) -> Layers:
    """Layers that share part of their content."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, 3))
    return [common @ rng.standard_normal((3, p)) + rng.standard_normal((n, p)) for p in widths]


def hsic_of(layers: Layers, kernel: Callable[[np.ndarray], np.ndarray] = linear_gram) -> np.ndarray:
    return packed(np.stack([kernel(x) for x in layers])).hsic()


def similarity(layers: Layers) -> np.ndarray:
    return cka(hsic_of(layers))


def song_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """The unbiased estimator of Song et al. (2012), equation 4, term by term."""
    n = len(k)
    others = [(i, j) for i in range(n) for j in range(n) if i != j]
    trace = sum(k[i, j] * m[j, i] for i, j in others)
    totals = sum(k[i, j] for i, j in others) * sum(m[i, j] for i, j in others)
    chains = sum(k[i, j] * m[j, r] for i, j in others for r in range(n) if r != j)
    return float((trace + totals / ((n - 1) * (n - 2)) - 2 * chains / (n - 2)) / (n * (n - 3)))


def quadruple_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """The same as a U-statistic: the mean over all ordered quadruples of different samples."""
    terms = [
        k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in itertools.permutations(range(len(k)), 4)
    ]
    return float(np.mean(terms))


@pytest.mark.parametrize("kernel", [linear_gram, rbf_gram])
@pytest.mark.parametrize("reference", [song_hsic, quadruple_hsic])
def test_all_pairs_match_the_slow_estimators(
    kernel: Callable[[np.ndarray], np.ndarray], reference: Callable[[np.ndarray, np.ndarray], float]
) -> None:
    layers = random_layers(n=7)
    kernels = [kernel(x) for x in layers]
    expected = [[reference(k, m) for m in kernels] for k in kernels]
    np.testing.assert_allclose(hsic_of(layers, kernel), expected, rtol=1e-9, atol=1e-12)


def test_biased_hsic_matches_the_double_sum() -> None:
    layers = random_layers(n=6)
    h = np.eye(6) - 1 / 6
    expected = [[np.trace(x @ x.T @ h @ y @ y.T @ h) / 25 for y in layers] for x in layers]
    found = packed(np.stack([linear_gram(x) for x in layers]), unbiased=False).hsic()
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_two_models_match_the_block_of_both_together() -> None:
    layers = random_layers()
    both = hsic_of(layers)
    grams = np.stack([linear_gram(x) for x in layers])
    hsic = packed(grams[:1]).hsic(packed(grams[1:]))
    np.testing.assert_allclose(hsic, both[:1, 1:], rtol=1e-12)
    diagonal = both.diagonal()
    np.testing.assert_allclose(cross_cka(hsic, diagonal[:1], diagonal[1:]), cka(both)[:1, 1:], rtol=1e-12)


def test_hsic_of_layers_that_do_not_vary_is_marked() -> None:
    grams = np.stack([linear_gram(x) for x in random_layers()])
    grams[2] = 0
    some, whole = packed(grams[:2]), packed(grams)
    undefined = np.zeros((4, 4), bool)
    undefined[2] = undefined[:, 2] = True
    np.testing.assert_array_equal(np.isnan(whole.hsic()), undefined)
    np.testing.assert_array_equal(np.isnan(some.hsic(whole)), undefined[:2])
    np.testing.assert_array_equal(np.isnan(whole.hsic(some)), undefined[:, :2])


def test_rounding_that_differs_across_the_diagonal_is_evened_out() -> None:
    hsic = hsic_of(random_layers())
    hsic[0, 1] *= 1 + 1e-15
    matrix = cka(hsic)
    np.testing.assert_array_equal(matrix, matrix.T)


@properties
@given(seeds)
def test_symmetric_bit_for_bit_with_a_diagonal_of_exactly_one(seed: int) -> None:
    matrix = similarity(random_layers(seed))
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(matrix.diagonal(), 1)


@properties
@given(seeds, st.integers(4, 12))
def test_at_most_one_in_magnitude(seed: int, n: int) -> None:
    assert np.abs(similarity(random_layers(seed, n))).max() <= 1 + 1e-12


@properties
@given(seeds)
def test_unchanged_by_rotations_of_a_layer(seed: int) -> None:
    layers = random_layers(seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((8, 8)))
    turned = [*layers[:2], layers[2] @ rotation, layers[3]]
    np.testing.assert_allclose(similarity(turned), similarity(layers), atol=1e-9)


@properties
@given(seeds, st.floats(1e-6, 1e6), st.floats(-1e3, 1e3))
def test_unchanged_by_scaling_and_shifting_a_layer(seed: int, scale: float, shift: float) -> None:
    layers = random_layers(seed)
    moved = [(layers[0] + shift) * scale, *layers[1:]]
    np.testing.assert_allclose(similarity(moved), similarity(layers), atol=1e-7)


@properties
@given(seeds)
def test_unchanged_by_the_order_of_samples_and_following_the_order_of_layers(seed: int) -> None:
    layers, rng = random_layers(seed), np.random.default_rng(seed)
    samples, order = rng.permutation(9), rng.permutation(4)
    matrix = similarity(layers)
    np.testing.assert_allclose(similarity([x[samples] for x in layers]), matrix, atol=1e-9)
    np.testing.assert_allclose(
        similarity([layers[i] for i in order]), matrix[np.ix_(order, order)], atol=1e-9
    )


def test_minibatches_give_one_ratio_of_sums() -> None:
    batches = np.stack([hsic_of(random_layers(seed)) for seed in range(4)])
    total = sum(batches)
    norms = np.sqrt(np.outer(total.diagonal(), total.diagonal()))
    np.testing.assert_allclose(combine(batches), total / norms, rtol=1e-12)


def test_the_papers_estimate_is_the_mean_of_the_ratios() -> None:
    batches = np.stack([hsic_of(random_layers(seed)) for seed in range(4)])
    expected = np.mean([cka(hsic) for hsic in batches], axis=0)
    np.testing.assert_allclose(combine(batches, "paper"), expected, rtol=1e-12)


@pytest.mark.parametrize("estimator", ["minibatch", "paper"])
def test_a_layer_undefined_in_some_batches_stays_defined(estimator: cka_module.Estimator) -> None:
    batches = np.stack([hsic_of(random_layers(seed)) for seed in range(3)])
    partly = batches.copy()
    partly[0, 1, :] = partly[0, :, 1] = np.nan
    matrix = combine(partly, estimator)
    assert np.isfinite(matrix).all()
    if estimator == "minibatch":
        np.testing.assert_allclose(matrix, combine(np.nan_to_num(partly)), rtol=1e-12)
    else:
        np.testing.assert_allclose(matrix[1], combine(batches[1:], estimator)[1])
    partly[:, 1, :] = partly[:, :, 1] = np.nan
    matrix = combine(partly, estimator)
    assert np.isnan(matrix[1]).all()
    assert np.isnan(matrix[:, 1]).all()
    kept = np.ix_([0, 2, 3], [0, 2, 3])
    np.testing.assert_array_equal(matrix[kept], combine(batches, estimator)[kept])


def test_no_batches_are_refused() -> None:
    with pytest.raises(InputError, match="no batch"):
        combine(np.zeros((0, 3, 3)))


def test_different_numbers_of_samples_are_refused() -> None:
    with pytest.raises(InputError, match="on 8 and on 6 samples"):
        packed(np.ones((2, 8, 8))).hsic(packed(np.ones((2, 6, 6))))

"""Where the metrics draw their lines: rounding, constants, few samples, dominance, penalties."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from redtest_onnx.errors import InputError
from redtest_onnx.metrics.cka import CONSTANT, UNBIASED_SAMPLES, gram_samples, hsic_scale
from redtest_onnx.metrics.elimination import LinearReader, eliminate
from redtest_onnx.metrics.grams import beyond_rounding, centre_gram, centred_norms, linear_gram, only_rounding
from redtest_onnx.metrics.least_squares import PENALTIES, RidgeFit, _chosen_penalties
from redtest_onnx.metrics.packed import PackedGrams
from redtest_onnx.metrics.ridge import NormalEquations, same_float
from redtest_onnx.metrics.statistics import largest_samples, norm_shares, shuffled_null, standard_errors
from redtest_onnx.metrics.tiled import in_turn
from redtest_onnx.runtime.threads import in_threads

EPS = float(np.finfo(np.float32).eps)


@pytest.mark.parametrize(
    ("low", "high", "varies"),
    [
        (1.0, 1.0 + 8 * EPS, False),
        (1.0, 1.0 + 9 * EPS, True),
        (-1.0 - 9 * EPS, -1.0, True),
        (-1.0 - 8 * EPS, -1.0, False),
        (0.0, 1e-30, True),
        (0.0, 0.0, False),
        (-np.inf, np.inf, False),
    ],
)
def test_eight_rounding_steps_are_no_variation(low: float, high: float, varies: bool) -> None:
    found = beyond_rounding(np.array([low], np.float32), np.array([high], np.float32), np.dtype(np.float32))
    assert found.tolist() == [varies]


def test_the_type_of_the_network_sets_the_rounding() -> None:
    low, high = np.array([1.0]), np.array([1.0 + 100 * 2.0**-52])
    assert beyond_rounding(low, high, np.float64).tolist() == [True]
    assert beyond_rounding(low, high, np.float32).tolist() == [False]
    assert beyond_rounding(low, high, np.float16).tolist() == [False]  # computed in single precision


@pytest.mark.parametrize(("factor", "expected"), [(0.99, True), (1.01, False)])
def test_a_layer_within_rounding_of_its_level(factor: float, expected: bool) -> None:
    largest = 5 * (8 * EPS * 3.0) ** 2
    assert only_rounding(factor * largest, 3.0, 5, np.float32) is expected
    assert only_rounding(0.0, 0.0, 5, np.float32)
    assert not only_rounding(1e-30, 0.0, 5, np.float32)


@pytest.mark.parametrize(("share", "varies"), [(0.5, False), (2.0, True)])
def test_what_is_left_of_a_gram_must_be_more_than_rounding(share: float, varies: bool) -> None:
    n = 6
    signs = np.array([1.0, -1, 1, -1, 1, -1])
    small = np.outer(signs, signs) * share * CONSTANT
    packed = PackedGrams.of([np.ones((n, n)) + small], 1, n, unbiased=False)
    assert (packed.norms[0] > 0) == varies


def test_the_fewest_samples_are_four_and_two() -> None:
    assert UNBIASED_SAMPLES == 4
    assert PackedGrams.of([np.diag(np.arange(4.0))], 1, 4).rows.shape == (1, 6)
    assert PackedGrams.of([np.eye(2)], 1, 2, unbiased=False).norms.any()
    with pytest.raises(InputError, match="at least 4 samples in a batch, got 3"):
        PackedGrams.of([np.eye(3)], 1, 3)
    with pytest.raises(InputError, match="at least 2 samples in a batch, got 1"):
        PackedGrams.of([np.eye(1)], 1, 1, unbiased=False)
    assert gram_samples(np.zeros((2, 5, 5)), 5) == 5
    for shape in ((5,), (5, 4), ()):
        with pytest.raises(InputError, match="must be square"):
            gram_samples(np.zeros(shape), 2)
    assert hsic_scale(5, unbiased=True) == 1 / 10
    assert hsic_scale(5, unbiased=False) == 1 / 16


def test_centring_a_gram_is_that_of_its_features() -> None:
    x = np.random.default_rng(0).normal(size=(7, 3)) + 5
    centred = x - x.mean(axis=0)
    np.testing.assert_allclose(centred_norms(x @ x.T), np.square(centred).sum(axis=1), rtol=1e-9)
    gram = x @ x.T
    assert centre_gram(gram) is gram
    np.testing.assert_allclose(gram, centred @ centred.T, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("unbiased", [True, False])
def test_leaving_samples_out_is_measuring_the_others(unbiased: bool) -> None:
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(9, width)) for width in (2, 4, 6)]
    layers[1] += layers[0] @ rng.normal(size=(2, 4))
    grams = [linear_gram(layer) for layer in layers]
    packed = PackedGrams.of(grams, 3, 9, unbiased=unbiased)
    kept = [0, 2, 3, 5, 6, 8]
    found = packed.hsic_without(np.array([7, 4, 1, 4]))
    rest = PackedGrams.of([gram[np.ix_(kept, kept)].copy() for gram in grams], 3, 6, unbiased=unbiased)
    np.testing.assert_allclose(found, rest.hsic(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(rest.own_hsic(), np.diagonal(rest.hsic()), rtol=1e-9)
    assert packed.hsic_without(np.arange(5)).shape == (3, 3)  # four are left
    with pytest.raises(InputError, match="without 6 of 9 samples too few are left"):
        packed.hsic_without(np.arange(6))


@pytest.mark.parametrize(("samples", "count"), [(4, 1), (99, 1), (100, 1), (199, 1), (200, 2), (1000, 10)])
def test_the_largest_hundredth_of_the_samples(samples: int, count: int) -> None:
    norms = np.arange(1.0, samples + 1)[None].repeat(2, axis=0)
    norms[1] = norms[1, ::-1]
    share, _ = norm_shares(norms)
    np.testing.assert_allclose(share, np.sort(norms[0])[-count:].sum() / norms[0].sum())
    top = list(range(samples - count, samples))
    assert largest_samples(norms, (0,)).tolist() == top
    assert largest_samples(norms, (0, 1)).tolist() == sorted({*top, *range(count)})


@pytest.mark.parametrize(("samples", "limit"), [(100, 0.1), (50, 0.2), (10, 0.5)])
def test_ten_times_its_share_or_half_of_all_dominates(samples: int, limit: float) -> None:
    def dominated(share: float) -> tuple[int, ...]:
        norms = np.full((1, samples), (1 - share) / (samples - 1))
        norms[0, 3] = share
        return norm_shares(norms)[1]

    assert dominated(limit + 1e-6) == (0,)
    assert dominated(limit - 1e-6) == ()
    share, which = norm_shares(np.zeros((1, samples)))
    assert np.isnan(share[0])
    assert which == ()


def test_a_null_needs_a_permutation_and_leaves_out_layers_with_themselves() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 3))
    same = PackedGrams.of([linear_gram(base)] * 2, 2, 40)
    found = shuffled_null(same, np.random.default_rng(1), repeats=6)
    assert abs(found.mean) < 0.1
    assert found.mean < found.quantile95 < 0.5
    assert found.repeats == 6
    assert shuffled_null(same, np.random.default_rng(1)).repeats == 5
    with pytest.raises(InputError, match="at least one permutation, got 0"):
        shuffled_null(same, np.random.default_rng(1), repeats=0)
    alone = shuffled_null(PackedGrams.of([linear_gram(base)], 1, 40), np.random.default_rng(1), repeats=1)
    assert np.isnan([alone.mean, alone.quantile95]).all()


@pytest.mark.parametrize("layers", [3, 4, 5, 7])
def test_of_many_layers_four_are_permuted(layers: int) -> None:
    from redtest_onnx.metrics.statistics import _drawn

    few, order = _drawn(np.random.default_rng(0), 9, layers)
    assert sorted(order) == list(range(9))
    assert len(set(few.tolist())) == min(layers, 4)
    if layers <= 4:
        assert few.tolist() == list(range(layers))


@pytest.mark.parametrize("estimator", ["minibatch", "paper"])
def test_standard_errors_against_their_definitions(estimator: Any) -> None:
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(5):
        x = rng.normal(size=(12, 4))
        layers = [x, x + rng.normal(size=(12, 4)), rng.normal(size=(12, 2))]
        batches.append(PackedGrams.of([linear_gram(layer) for layer in layers], 3, 12).hsic())
    hsic = np.stack(batches)

    def similarity(total: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        d = np.sqrt(np.diagonal(total))
        found: np.ndarray[Any, Any] = total / np.outer(d, d)
        return found

    if estimator == "paper":
        values = np.stack([similarity(batch) for batch in hsic])
        expected = values.std(axis=0, ddof=1) / np.sqrt(5)
    else:
        values = np.stack([similarity(hsic.sum(axis=0) - batch) for batch in hsic])
        expected = np.sqrt(4 / 5 * np.square(values - values.mean(axis=0)).sum(axis=0))
    found = standard_errors(hsic, estimator)
    np.testing.assert_allclose(found.cka[0, 1:], expected[0, 1:], rtol=1e-9)
    assert found.batches == 5
    one = standard_errors(hsic[:1], "paper")
    assert np.isnan(one.cka).all()
    assert np.isnan(one.msrs)
    with pytest.raises(InputError, match="no batch was measured"):
        standard_errors(hsic[:0], estimator)


def test_the_penalty_of_a_reader_is_a_thousandth_of_the_mean_variance() -> None:
    moments = np.diag([1.0, 2.0, 6.0])
    one = LinearReader(moments, np.ones((3, 1)), 1.0)
    np.testing.assert_allclose(one.penalised, moments + 0.003 * np.eye(3))
    silent = LinearReader(np.zeros((2, 2)), np.ones((2, 1)), 1.0)
    assert np.isfinite(np.linalg.inv(silent.penalised)).all()


@pytest.mark.parametrize(("channels", "together"), [(2, 1), (64, 1), (127, 1), (128, 2), (192, 3)])
def test_of_more_than_sixty_four_channels_some_go_together(channels: int, together: int) -> None:
    one = LinearReader(np.eye(channels), np.diag(np.arange(1.0, channels + 1)), float(channels))
    found = eliminate([one], channels)
    np.testing.assert_array_equal(found.order, np.arange(channels))  # the smallest weights first
    rises = np.diff(found.errors)
    assert (rises >= 0).all()
    shared = [np.allclose(rises[k], rises[k + 1], rtol=1e-12) for k in range(len(rises) - 1)]
    assert any(shared) == (together > 1)
    assert len(found.kept(channels)) == channels
    assert found.kept(1).tolist() == [channels - 1]
    assert found.kept(0).tolist() == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.int8, np.float32),
        (np.int32, np.float32),
        (np.int64, np.float64),
    ],
)
def test_products_are_in_single_precision_unless_values_are_wider(given: type, expected: type) -> None:
    assert same_float(np.ones(3, given)).dtype == expected


class Counted(NormalEquations):
    """Gives errors that were said, and counts how often one was asked for."""

    errors: dict[float, float]
    asked: list[float]

    def errors_on(self, check: NormalEquations, *, intercept: bool = True) -> Any:
        def error(ridge: float) -> Any:
            self.asked.append(ridge)
            return np.array([self.errors[ridge]])

        return error


@pytest.mark.parametrize(
    ("errors", "asked", "best"),
    [
        ([5, 4, 3, 4, 5], [4, 3, 2, 1], 2),
        ([1, 2, 3, 4, 5], [4, 3, 2, 1, 0], 0),
        ([5, 4, 3, 2, 1], [4, 3], 4),
        ([0, 2, 3, 2, 1], [4, 3], 4),  # a second minimum is not looked for
        ([3, 3, 3, 3, 3], [4, 3], 4),  # of equal ones the larger
        ([1.0, 1.0005, 1.002, 1.1, 1.2], [4, 3, 2, 1, 0], 1),  # of nearly equal ones, too
        ([-2e-9, -1e-9, 0.1, 0.2, 0.3], [4, 3, 2, 1, 0], 0),
        ([5, np.inf, 3, 4, 5], [4, 3, 2, 1], 2),
        ([np.nan, 9, np.nan, 4, 5], [4, 3, 2], 3),
        ([1, 2, 3, 4, np.nan], [4, 3, 2, 1, 0], 0),  # of a fit that failed nothing follows
    ],
)
def test_penalties_are_lowered_while_the_error_falls(
    errors: list[float], asked: list[int], best: int
) -> None:
    train = Counted(2, 1)
    train.errors, train.asked = dict(zip(PENALTIES, map(float, errors), strict=True)), []
    penalties, found = _chosen_penalties(train.errors_on(Counted(2, 1)), in_turn)
    assert [PENALTIES.index(ridge) for ridge in train.asked] == asked
    assert penalties.tolist() == [PENALTIES[best]]
    assert found.tolist() == [errors[best]]


@pytest.mark.parametrize("errors", [[5, 4, 3, 4, 5], [1, 2, 3, 4, 5], [3, 3, 3, 3, 3]])
def test_penalties_tried_on_threads_are_chosen_alike(errors: list[float]) -> None:
    train = Counted(2, 1)
    train.errors, train.asked = dict(zip(PENALTIES, map(float, errors), strict=True)), []
    error_of = train.errors_on(Counted(2, 1))
    alone, asked = _chosen_penalties(error_of, in_turn), len(train.asked)
    together = _chosen_penalties(error_of, partial(in_threads, threads=3))
    np.testing.assert_array_equal(alone, together)
    assert len(train.asked) - asked <= asked + 2  # those that were under way when the choice was clear


def test_residuals_are_those_of_the_rows_with_any_shift_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 2, 3)) + 7, rng.normal(size=(50, 2, 2)) - 3
    sums = NormalEquations(3, 2, 2)
    sums.add(x[:20], y[:20])
    sums.add(x[20:], y[20:])
    fit = RidgeFit(rng.normal(size=(2, 3, 2)), rng.normal(size=(2, 2)), np.zeros(2), np.zeros(2))
    error = y - np.einsum("ngp,gpq->ngq", x, fit.weight) - fit.bias
    expected = np.square(error).sum(axis=(0, 2)) / np.square(y).sum(axis=(0, 2))
    np.testing.assert_allclose(sums.residual(fit), expected, rtol=1e-9)
    np.testing.assert_array_equal(NormalEquations(3, 2, 2).residual(fit), [1.0, 1.0])

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redtest_onnx.errors import InputError
from redtest_onnx.metrics.msrs import msrs, msrs_batches, pair_scores

MATRIX = np.array(
    [
        [1.0, 0.81, 0.8, 0.1],
        [0.81, 1.0, 0.795, -0.02],
        [0.8, 0.795, 1.0, 0.95],
        [0.1, -0.02, 0.95, 1.0],
    ]
)


def logistic(similarity: float, alpha: float, threshold: float) -> float:
    return 1 / (1 + math.exp(-2 * alpha * (similarity - threshold)))


@pytest.mark.parametrize(("alpha", "threshold"), [(100.0, 0.8), (10.0, 0.7), (1.0, 0.9)])
def test_sum_over_the_upper_triangle(alpha: float, threshold: float) -> None:
    expected = sum(logistic(MATRIX[i, j], alpha, threshold) for i in range(4) for j in range(i + 1, 4))
    result = msrs(MATRIX, alpha, threshold)
    assert result.value == pytest.approx(expected, rel=1e-12)
    assert (result.pairs, result.undefined) == (6, 0)


def test_defaults_are_the_papers() -> None:
    assert msrs(MATRIX) == msrs(MATRIX, alpha=100.0, threshold=0.8, gate=False)


def test_gate_scores_nothing_up_to_the_threshold() -> None:
    expected = logistic(0.81, 100, 0.8) + logistic(0.95, 100, 0.8)
    assert msrs(MATRIX, gate=True).value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("alpha", [110.0, 1e6, 1e300, 1.7e308])
def test_large_alpha_counts_the_pairs_above_the_threshold(alpha: float) -> None:
    opposite = np.array([-1.0])
    assert msrs(MATRIX, alpha, threshold=0.7).value == pytest.approx(4)
    assert pair_scores(opposite, alpha) == 0


def test_float32_matrices_are_scored_in_float64() -> None:
    scores = pair_scores(MATRIX.astype(np.float32), alpha=1e4)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()


def test_undefined_pairs_are_left_out_and_counted() -> None:
    matrix = MATRIX.copy()
    matrix[1] = matrix[:, 1] = np.nan
    kept = np.ix_([0, 2, 3], [0, 2, 3])
    result = msrs(matrix)
    assert result.value == msrs(MATRIX[kept]).value
    assert (result.pairs, result.undefined) == (3, 3)


def test_without_a_defined_pair_there_is_no_score() -> None:
    result = msrs(np.full((3, 3), np.nan))
    assert math.isnan(result.value)
    assert (result.pairs, result.undefined) == (0, 3)


@pytest.mark.parametrize("layers", [0, 1])
def test_fewer_than_two_layers_are_refused(layers: int) -> None:
    with pytest.raises(InputError, match=f"at least two layers, got {layers}"):
        msrs(np.ones((layers, layers)))


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (3,), (3, 3, 3)])
def test_the_matrix_must_be_square(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="square"):
        msrs(np.ones(shape))


@pytest.mark.parametrize("gate", [False, True])
def test_infinite_alpha_is_a_step_above_the_threshold(gate: bool) -> None:
    values = np.array([0.81, 0.8, 0.1, 0.795, -0.02, np.nan, 0.95])
    scores = pair_scores(values, math.inf, 0.8, gate)
    np.testing.assert_array_equal(scores, [1, 0, 0, 0, 0, np.nan, 1])
    assert scores.dtype == np.float64
    assert msrs(MATRIX, math.inf, gate=gate).value == 2


@pytest.mark.parametrize("alpha", [0.0, -1.0, -math.inf, math.nan])
def test_alpha_must_be_positive(alpha: float) -> None:
    with pytest.raises(InputError, match="alpha"):
        msrs(MATRIX, alpha)


def test_the_threshold_must_be_finite() -> None:
    with pytest.raises(InputError, match="threshold"):
        msrs(MATRIX, threshold=math.nan)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=2), st.floats(1e-3, 1e6), st.floats(0, 1))
def test_scores_grow_with_similarity_between_zero_and_one(
    pair: list[float], alpha: float, threshold: float
) -> None:
    low, high = pair_scores(np.sort(np.array(pair)), alpha, threshold)
    assert 0 <= low <= high <= 1


def test_batches_give_mean_and_sample_deviation() -> None:
    batches = np.stack([MATRIX, MATRIX * 0.99, MATRIX**2])
    result = msrs_batches(batches, alpha=20.0)
    values = [msrs(matrix, alpha=20.0).value for matrix in batches]
    assert [score.value for score in result.per_batch] == values
    assert result.mean == pytest.approx(sum(values) / 3)
    assert result.std == pytest.approx(math.sqrt(sum((v - sum(values) / 3) ** 2 for v in values) / 2))


def test_a_batch_without_a_defined_pair_does_not_count() -> None:
    result = msrs_batches(np.stack([MATRIX, np.full((4, 4), np.nan)]))
    assert result.mean == msrs(MATRIX).value
    assert math.isnan(result.std)
    assert [score.pairs for score in result.per_batch] == [6, 0]

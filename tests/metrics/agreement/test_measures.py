"""Each measure against what can be worked out by hand, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redtest_onnx.metrics.agreement.base import Measure, MeasureResult
from redtest_onnx.metrics.agreement.boxes import BoxSetSum, centred, corners, from_centre
from redtest_onnx.metrics.agreement.classes import ClassMeasure
from redtest_onnx.metrics.agreement.elements import ElementMeasure
from redtest_onnx.metrics.agreement.embeddings import EmbeddingMeasure, spearman
from redtest_onnx.metrics.agreement.next_token import NextTokenMeasure
from redtest_onnx.metrics.agreement.summary import Agreement, DistanceSum, OutputAgreement
from redtest_onnx.metrics.agreement.values import ValuesMeasure

MEASURES: dict[str, Callable[[], Measure]] = {
    "values": ValuesMeasure,
    "classes": ClassMeasure,
    "next token": NextTokenMeasure,
    "embeddings": EmbeddingMeasure,
}


def held(
    measure: Measure, reference: np.ndarray, other: np.ndarray, counted: np.ndarray | None = None
) -> MeasureResult:
    """In two batches."""
    cut = len(reference) // 2
    parts = [slice(0, cut), slice(cut, None)]
    masks = [None if counted is None else counted[part] for part in parts]
    for part, mask in zip(parts, masks, strict=True):
        measure.observe(reference[part], mask)
    total = measure.start()
    for part, mask in zip(parts, masks, strict=True):
        total.add(reference[part], other[part], mask)
    return total.result()


@pytest.mark.parametrize("name", MEASURES)
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(2, 6), st.sampled_from([1e-6, 1.0, 1e6]))
def test_equal_models_agree_exactly(name: str, seed: int, count: int, width: int, scale: float) -> None:
    values = (np.random.default_rng(seed).normal(size=(count, width)) * scale).astype(np.float32)
    assert held(MEASURES[name](), values, values.copy()).agreement == 1.0


@pytest.mark.parametrize("name", MEASURES)
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_the_order_of_samples_does_not_matter(name: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(2, 20, 5))
    order = random.permutation(20)
    results = [held(MEASURES[name](), *pair).agreement for pair in ((a, b), (a[order], b[order]))]
    assert results[0] == pytest.approx(results[1], abs=1e-9)


@pytest.mark.parametrize("name", MEASURES)
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_agreement_lies_between_0_and_1_and_nan_takes_its_part(name: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=(10, 4))
    other = values + random.normal(size=(10, 4)) * random.choice([0, 0.1, 10])
    whole = held(MEASURES[name](), values, other).agreement
    assert whole is not None
    assert 0 <= whole <= 1
    other[3] = np.nan
    broken = held(MEASURES[name](), values, other).agreement
    assert broken is not None
    assert broken < 1


def test_unrelated_values_and_the_mean_score_nothing() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(400, 3)) + 100  # a large mean must not hide the error
    assert held(ValuesMeasure(), values, random.normal(size=(400, 3)) + 100).agreement == 0
    guess = np.broadcast_to(values.mean(axis=0), values.shape)
    assert held(ValuesMeasure(), values, guess).agreement == pytest.approx(0, abs=1e-12)


def test_values_by_hand() -> None:
    values = np.array([[1.0, 10.0], [3.0, 10.0], [1.0, 14.0], [3.0, 14.0]])  # variances 1 and 4
    other = values + np.array([[0.5, 1.0]])
    result = held(ValuesMeasure(), values, other)
    assert result.agreement == pytest.approx(1 - 1.25 / 5)
    assert result.details["largest_difference"] == 1.0
    assert result.details["relative_error"] == pytest.approx(0.25)


def test_values_match_the_coefficient_of_determination_in_float64() -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=(60, 4, 3, 2)) * 3 + 7
    other = values + random.normal(size=values.shape)
    expected = 1 - np.square(other - values).sum() / np.square(values - values.mean(axis=0)).sum()
    assert held(ValuesMeasure(), values, other).agreement == pytest.approx(expected, rel=1e-9)


def test_constant_values_are_taken_by_their_size() -> None:
    values = np.full((6, 2), 5.0)
    assert held(ValuesMeasure(), values, values * 1.1).agreement == pytest.approx(0.99)
    zeros = np.zeros((6, 2))
    assert held(ValuesMeasure(), zeros, zeros).agreement == 1
    assert held(ValuesMeasure(), zeros, values).agreement == 0


def test_equal_infinities_are_no_difference() -> None:
    values = np.random.default_rng(0).normal(size=(8, 3))
    values[:, 1] = -np.inf  # masked scores
    assert held(ValuesMeasure(), values, values.copy()).agreement == 1
    other = values.copy()
    other[0, 1] = 0
    assert held(ValuesMeasure(), values, other).agreement == pytest.approx(7 / 8)


@pytest.mark.parametrize("name", ["values", "classes"])
def test_positions_left_out_do_not_count(name: str) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(6, 5, 3))
    counted = random.random((6, 5)) < 0.6
    counted[:, 0] = True
    other = np.where(counted[..., None], values, -values)
    assert held(MEASURES[name](), values, other, counted).agreement == 1
    assert held(MEASURES[name](), values, other).agreement < 1  # type: ignore[operator]


def test_outputs_of_other_sizes_do_not_agree() -> None:
    for make in MEASURES.values():
        measure = make()
        measure.observe(np.arange(12.0).reshape(4, 3))
        total = measure.start()
        total.add(np.arange(12.0).reshape(4, 3), np.arange(8.0).reshape(4, 2)[:, None])
        assert total.result().agreement == 0


def test_one_class_throughout_is_no_answer() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(20, 3)) + np.array([0, 100, 0])
    result = held(ClassMeasure(), values, random.normal(size=(20, 3)) + np.array([0, 100, 0]))
    assert result.details["top_class"] == 1
    assert result.agreement == 0


@pytest.mark.parametrize(("others", "answers"), [(1, False), (5, False), (6, True), (20, True)])
def test_nearly_one_class_is_no_answer_either(others: int, answers: bool) -> None:
    """A model that always gives the commonest of 100 answers must not pass for one that agrees."""
    random = np.random.default_rng(0)
    values = random.normal(size=(100, 3)) + np.array([0, 100, 0])
    values[:others, 2] = 500
    always = random.normal(size=(100, 3)) + np.array([0, 100, 0])
    result = held(ClassMeasure(), values[random.permutation(100)], always)
    share = 1 - others / 100
    assert result.details["top_class"] == pytest.approx(share)
    assert (result.measure == "same top class") is answers
    if answers:
        assert result.agreement == pytest.approx(share)
    else:
        assert result.agreement == 0
        assert f"one class for {share:.1%} of its answers" in result.measure


def test_divergence_of_the_next_token_by_hand() -> None:
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.5, 0.25])
    expected = 0.5 * np.log(2) + 0.25 * np.log(0.5)
    rows = [np.log(np.tile(side, (4, 2, 1))) + shift for side, shift in ((p, 3.0), (q, -5.0))]
    result = held(NextTokenMeasure(), *rows)
    assert result.details["kl_nats"] == pytest.approx(expected)
    assert result.agreement == 0
    shares = [np.tile(side, (4, 2, 1)) for side in (p, q)]
    assert held(NextTokenMeasure("probabilities"), *shares).details["kl_nats"] == pytest.approx(expected)


def test_embeddings_that_are_turned_keep_their_order_but_not_their_place() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(30, 8))
    turn, _ = np.linalg.qr(random.normal(size=(8, 8)))
    result = held(EmbeddingMeasure(), values, values @ turn)
    assert result.details["spearman"] == pytest.approx(1, abs=1e-6)
    assert result.details["same_neighbour"] == 1
    assert result.agreement is not None
    assert result.agreement < 0.5  # stored vectors can't be searched with it


def test_spearman_is_scipys() -> None:
    from scipy.stats import spearmanr

    a, b = np.random.default_rng(0).normal(size=(2, 9, 9))
    above = np.triu_indices(9, 1)
    assert spearman(a, b) == pytest.approx(spearmanr(a[above], b[above]).statistic)
    assert spearman(np.ones((4, 4)), np.ones((4, 4)) * 2) == 1.0


def test_elements_are_equal_or_not() -> None:
    total = ElementMeasure().start()
    total.add(np.array([1, 2, 3]), np.array([1, 2, 4]))
    total.add(["a", "b"], ["a"])
    total.add([{"x": 1.0}], [{"x": 1.0, "y": 2.0}])
    assert total.result().agreement == pytest.approx((2 + 1 + 1) / (3 + 2 + 2))
    total = ElementMeasure().start()
    total.add(np.array(["a", "b"], object), np.array(["a", "c"], object))
    assert total.result().agreement == 0.5


def test_boxes_are_a_set() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60.0]])
    total = BoxSetSum()
    total.add(boxes, boxes[[2, 0, 1]])
    assert total.result().agreement == 1
    assert total.result().details["mean_iou"] == 1
    total.add(boxes, boxes[:1] + 5)  # an overlap of 25 / 175
    assert total.result().agreement == pytest.approx(2 * 3 / (6 + 4))
    empty = BoxSetSum()
    empty.add(np.zeros((0, 4)), np.zeros((0, 4)))
    assert empty.result().agreement == 1


def test_one_box_is_matched_once() -> None:
    box = np.array([[0, 0, 10, 10.0]])
    total = BoxSetSum()
    total.add(box, np.repeat(box, 3, axis=0))
    assert total.result().agreement == pytest.approx(2 / 4)


def test_rows_of_boxes_are_read() -> None:
    middle = np.array([[50, 50, 4, 6.0]])
    assert centred(middle)
    assert from_centre(middle).tolist() == [[48, 47, 52, 53]]
    assert corners(np.array([[7, 1, 2, 3, 4, 0, 0.9]])) == pytest.approx(np.array([[1, 2, 3, 4]]))
    assert corners(np.zeros((2, 5, 4))) is None
    assert corners(np.zeros((5, 20))) is None


def test_the_verdict_is_that_of_the_worst_output_that_counts() -> None:
    parts = [
        OutputAgreement("a", "values", None, "", 0.9),
        OutputAgreement("b", "values", None, "", 0.4, steers=False),
        OutputAgreement("c", "values", None, "", None),
        OutputAgreement("d", "classes", 1, "", 0.8),
    ]
    assert Agreement(None, 1.0, 0.0, tuple(parts)).value == 0.8
    assert Agreement(None, 1.0, 0.0, tuple(parts[1:3])).value is None


def test_distance_by_hand_over_two_batches() -> None:
    total = DistanceSum()
    total.add([np.array([[3.0, 4.0]])], [np.array([[4.0, 3.0]])])
    total.add([np.array([[0.0, 5.0]])], [np.array([[0.0, 10.0]])])
    result = total.result()
    assert result.cosine == pytest.approx((24 / 25 + 1) / 2)
    assert result.relative_l2 == pytest.approx(np.sqrt((1 + 1 + 25) / (25 + 25)))


def test_silent_models_have_no_distance() -> None:
    total = DistanceSum()
    total.add([np.zeros((2, 3))], [np.zeros((2, 3))])
    assert total.result().cosine == 1
    assert total.result().relative_l2 == 0


def test_several_tensors_are_one_row_and_nothing_is_undefined() -> None:
    total = DistanceSum()
    total.add([np.ones((2, 1)), np.ones((2, 1))], [np.ones((2, 1)), np.zeros((2, 1))])
    assert total.result().cosine == pytest.approx(np.sqrt(0.5))
    assert np.isnan(DistanceSum().result().cosine)
    other = DistanceSum()
    other.add([np.ones((2, 3))], [np.ones((2, 2))])
    assert np.isnan(other.result().relative_l2)


@pytest.mark.parametrize("masked", [-np.inf, np.inf])
def test_values_masked_by_infinity_are_judged_by_the_rest(masked: float) -> None:
    random = np.random.default_rng(4)
    values = random.normal(size=(400, 6))
    hidden = random.random(values.shape) < 0.3
    hidden[:, 0] = False
    noisy = values + 0.3 * random.normal(size=values.shape)
    other = random.normal(size=values.shape)
    values[hidden] = noisy[hidden] = other[hidden] = masked
    assert held(ValuesMeasure(), values, values.copy()).agreement == 1
    assert held(ValuesMeasure(), values, noisy).agreement == pytest.approx(0.91, abs=0.01)
    assert held(ValuesMeasure(), values, other).agreement == 0


def test_values_whose_samples_are_masked_alike_are_those_without_the_masked() -> None:
    random = np.random.default_rng(5)
    a, b = random.normal(size=(2, 50, 4))
    b = a + 0.1 * b
    masked = [np.concatenate([side, np.full((50, 1), -np.inf)], axis=1) for side in (a, b)]
    assert held(ValuesMeasure(), *masked).agreement == pytest.approx(held(ValuesMeasure(), a, b).agreement)

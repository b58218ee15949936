from __future__ import annotations

import numpy as np
import pytest

from redtest_onnx.metrics.agreement import AgreementSum


def test_a_model_agrees_with_itself() -> None:
    outputs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    total = AgreementSum()
    total.add([outputs], [outputs])
    result = total.result()
    assert result.top1 == 1
    assert result.cosine == pytest.approx(1)
    assert result.relative_l2 == 0


def test_agreement_by_hand_over_two_batches() -> None:
    total = AgreementSum()
    total.add([np.array([[3.0, 4.0]])], [np.array([[4.0, 3.0]])])
    total.add([np.array([[0.0, 5.0]])], [np.array([[0.0, 10.0]])])
    result = total.result()
    assert result.top1 == 0.5
    assert result.cosine == pytest.approx((24 / 25 + 1) / 2)
    assert result.relative_l2 == pytest.approx(np.sqrt((1 + 1 + 25) / (25 + 25)))


def test_silent_models_agree() -> None:
    total = AgreementSum()
    total.add([np.zeros((2, 3))], [np.zeros((2, 3))])
    assert total.result().cosine == 1
    assert total.result().relative_l2 == 0


def test_several_outputs_are_one_row() -> None:
    total = AgreementSum()
    total.add([np.ones((2, 1)), np.ones((2, 1))], [np.ones((2, 1)), np.zeros((2, 1))])
    assert total.result().top1 is None
    assert total.result().cosine == pytest.approx(np.sqrt(0.5))


def test_nothing_to_compare_is_undefined() -> None:
    assert np.isnan(AgreementSum().result().cosine)

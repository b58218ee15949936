from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from criterion_contexts import CPU, MODELS, criterion_context

import redtest_onnx as rt
from redtest_onnx.pruning.criteria import base as criteria
from redtest_onnx.pruning.criteria.supervised import linear_accuracy
from redtest_onnx.runtime.workbench import Workbench

context = partial(criterion_context, fitted=96)


@pytest.mark.parametrize("name", ["modularity", "probe"])
def test_criteria_with_labels_say_so_without(name: str, tmp_path: Path) -> None:
    model = context("vgg").model
    images = np.load(MODELS / "digits.npz")["calibration/input"][:32]
    np.savez(tmp_path / "plain.npz", input=images)
    data = rt.open_data(tmp_path / "plain.npz", model)
    with pytest.raises(rt.InputError, match="needs labels"):
        list(criteria.rank(name, replace(context("vgg"), bench=Workbench(model, data, CPU))))


def test_angular_keeps_windows_together() -> None:
    found = [item.layer for item in criteria.rank("angular", context("vit"))]
    candidates = context("vit").candidates
    assert set(found) == set(candidates)
    assert found != candidates


def test_segment_prefers_layers_that_resemble_their_neighbours() -> None:
    ranking = list(criteria.rank("segment", context("resnet")))
    assert ranking[0].score > ranking[-1].score


def test_recoverable_leaves_an_operator_in_front_of_each_gap() -> None:
    """Gaps come apart before they grow: that is what a fit can mend."""
    chosen = [item.layer.index for item in islice(criteria.rank("recoverable", context("resnet")), 6)]
    assert len({i for i in chosen if i - 1 not in chosen}) >= 4


def test_what_layers_are_worth_changes_the_choice() -> None:
    base = context("vit")
    wide = max(base.candidates, key=lambda layer: layer.parameters)
    keen = replace(base, worth=lambda layer: 1e9 if layer == wide else 1.0)
    for name in ("recoverable", "output-effect"):
        assert next(criteria.rank(name, keen)).layer == wide


def test_a_linear_classifier_tells_separable_classes_apart() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    apart = np.eye(3)[labels] + 0.01 * rng.normal(size=(200, 3))
    assert linear_accuracy(apart, labels) == 1.0
    assert linear_accuracy(rng.normal(size=(200, 3)), labels) < 0.6


def test_a_linear_classifier_is_not_chosen_on_the_samples_that_judge_it() -> None:
    """Of labels that nothing tells, the answers are right as often as chance, on average."""
    found = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        found.append(linear_accuracy(rng.normal(size=(40, 30)), rng.permutation(np.arange(40) % 2)))
    assert np.mean(found) == pytest.approx(0.5, abs=0.02)


def test_a_linear_classifier_sees_all_classes_of_samples_in_turn() -> None:
    labels = np.arange(240) % 4
    assert linear_accuracy(np.eye(4)[labels], labels) == 1.0
    assert linear_accuracy(np.zeros((240, 4)), labels) < 0.35

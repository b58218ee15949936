"""Accuracy on labels."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from output_graph import Graph, floats

import redtest_onnx as rt
from redtest_onnx.data.dataset import Subset
from redtest_onnx.runtime.evaluate import Evaluator


def one_number() -> rt.Model:
    """One number a sample: the input itself."""
    g = Graph(0)
    g("MatMul", g.feed("x", 1), g.store([[1.0]]), to="y")
    return g.model(floats("y", "N", 1))


@pytest.mark.parametrize("size", [1, 16, 32, 64])
def test_the_threshold_of_one_number_is_that_of_all_samples(size: int) -> None:
    """Half of the runs hold only values between 0 and 1, which could be probabilities if they were all."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(0.05, 0.45, (32, 1)), -rng.uniform(1, 2, (32, 1))]).astype(np.float32)
    bench = rt.open_workbench(one_number(), {"x": x, "labels": (x[:, 0] > 0).astype(np.int64)})
    found = Evaluator(bench.session(), Subset(bench.data, np.arange(64)), bench.outputs, None, size)
    assert found.reference.accuracy == 1.0


@pytest.mark.parametrize("classes", [1, 2])
def test_labels_of_one_class_steer_nothing(classes: int, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is removed, a model that gives this class each time is right on all of them."""
    x = np.linspace(0.6, 0.9, 32, dtype=np.float32)[:, None]
    x[: 16 * (classes - 1)] -= 0.55
    bench = rt.open_workbench(one_number(), {"x": x, "labels": (x[:, 0] > 0.5).astype(np.int64)})
    with caplog.at_level(logging.WARNING):
        reference = bench.evaluator(np.arange(32)).reference
    assert reference.accuracy == 1.0
    assert reference.accuracy_steers is (classes == 2)
    assert ("all labels are of one class" in caplog.text) is (classes == 1)

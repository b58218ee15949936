"""Samples are the same wherever they lie, and others are not."""

from __future__ import annotations

import numpy as np
from output_graph import Graph, floats

import redtest_onnx as rt
from redtest_onnx.data.fingerprint import fingerprint


def test_samples_are_told_by_what_they_hold() -> None:
    g = Graph(0)
    g.dense(g.feed("x", 4), 4, 2, to="y")
    model = g.model(floats("y"))
    x, labels = np.random.default_rng(0).random((9, 4), np.float32), np.arange(9) % 2

    def of(values: np.ndarray, classes: np.ndarray | None) -> str:
        held = {"x": values} if classes is None else {"x": values, "labels": classes}
        return fingerprint(rt.open_data(held, model))

    changed, relabelled = x.copy(), labels.copy()
    changed[-1, 0] += 1
    relabelled[1] = 0
    assert of(x, labels) == of(x.copy(), labels.copy())
    others = of(x, None), of(x, relabelled), of(x[:-1], labels[:-1]), of(changed, labels)
    assert len({of(x, labels), *others}) == 5

"""Runs of a batch are as small as the memory of their activations asks for."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.similarity import reader
from redtest_onnx.similarity.analyze import AnalysisSettings, analyze, batches_of, targets_of
from redtest_onnx.similarity.reader import GramReader


def model() -> rt.Model:
    net, x = Net(x=["N", 3, 8, 8]), "x"
    for k in range(4):
        x = net("Relu", net.conv(x, 3 if k == 0 else 6, 6))
    return net.model(net("MatMul", net("ReduceMean", x, axes=[2, 3], keepdims=0), net.weight(6, 3)))


@pytest.mark.parametrize(("room", "samples"), [(1, 1), (3, 3), (10**6, 24)])
def test_runs_hold_as_many_samples_as_there_is_room_for(
    room: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = rt.Workbench(model(), rt.open_data(None, model(), count=24), rt.RunOptions("cpu", 1))
    whole = analyze(bench, AnalysisSettings(samples=24, batches=1))
    assert bench.cost.peak_activation_bytes
    monkeypatch.setattr(reader, "_RUN_BYTES", room * bench.cost.peak_activation_bytes)
    targets = targets_of(bench.layers(), bench)
    assert GramReader(bench.opened, targets, [np.arange(24)], "mean")._per_run == samples
    cut = analyze(bench, AnalysisSettings(samples=24, batches=1))
    np.testing.assert_allclose(cut.similarity, whole.similarity, atol=1e-6)


def dense(dtype: type) -> rt.Model:
    """Products with weights that ONNX Runtime lays out anew."""
    net, x = Net(x=["N", 160]), "x"
    for _ in range(3):
        stored = net.store(np.random.default_rng(0).normal(0, 0.05, (160, 160)), dtype)
        x = net("Relu", net("MatMul", x, net("Cast", stored, to=1) if dtype != np.float32 else stored))
    return net.model(net("MatMul", x, net.weight(160, 3)))


@pytest.mark.parametrize(
    ("dtype", "batches", "limit", "use"),
    [
        (np.float32, 1, 0, "seldom"),  # whatever else the data hold
        (np.float32, 6, 0, "seldom"),
        (np.float32, 7, 0, "often"),  # what is saved once costs more in the end
        (np.float32, 1, 1 << 26, "often"),  # little is saved
        (np.int8, 1, 0, "often"),
    ],
)
def test_weights_of_large_models_are_laid_out_where_that_pays(
    dtype: type, batches: int, limit: int, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LARGE_WEIGHT", 1 << 12)
    monkeypatch.setattr(reader, "SPARED", limit)
    bench = rt.Workbench(dense(dtype), rt.open_data(None, dense(dtype), count=385), rt.RunOptions("cpu", 1))
    read = batches_of(bench.data, AnalysisSettings(samples=24, batches=batches))
    opened = GramReader(bench.opened, targets_of(bench.layers(), bench), read, "mean")._session.opener
    assert isinstance(opened, partial)
    assert opened.keywords["use"] == use
    found = analyze(bench, AnalysisSettings(samples=24, batches=1))
    monkeypatch.setattr(reader, "SPARED", 1 << 26)
    np.testing.assert_allclose(
        found.similarity, analyze(bench, AnalysisSettings(samples=24, batches=1)).similarity, atol=1e-6
    )

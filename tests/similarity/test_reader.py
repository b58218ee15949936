"""Runs of a batch are as small as the memory of their activations asks for."""

from __future__ import annotations

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.similarity import reader
from redtest_onnx.similarity.analyze import AnalysisSettings, analyze, targets_of
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
    assert GramReader(bench.opened, targets, 24, "mean")._per_run == samples
    cut = analyze(bench, AnalysisSettings(samples=24, batches=1))
    np.testing.assert_allclose(cut.similarity, whole.similarity, atol=1e-6)

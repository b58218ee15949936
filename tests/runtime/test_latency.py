"""Times of layers by themselves."""

from __future__ import annotations

from pathlib import Path

import redtest_onnx as rt
from redtest_onnx.runtime.latency import measure_layers
from redtest_onnx.runtime.workbench import Workbench

MODELS = Path(__file__).parents[2] / "models"


def test_each_layer_is_timed_by_itself() -> None:
    model = rt.load(MODELS / "vit_digits.onnx")
    bench = Workbench(model, rt.open_data(None, model), rt.RunOptions("cpu"))
    layers = bench.layers()
    found = measure_layers(bench, layers)
    assert [value is None for value in found] == [layer.input is None for layer in layers]
    assert all(value > 0 for value in found if value is not None)

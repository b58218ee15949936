from __future__ import annotations

import sys
from pathlib import Path

import pytest
from decoders import plain_decoder

import redtest_onnx as rt
from redtest_onnx.graph.cost import model_cost
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.memory_plan import peak_activation_bytes
from redtest_onnx.runtime.memory import measured_peak_activations
from redtest_onnx.runtime.workbench import Workbench

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "models"
FILES = [
    *(ROOT / "models" / f"{name}_digits.onnx" for name in ("resnet", "vgg", "vit")),
    SHARED / "resnet56_cifar10_bn.onnx",
]
CPU = rt.RunOptions(device="cpu", threads=1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_computed_peak_is_what_onnx_runtime_holds(path: Path) -> None:
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    model = rt.load(path)
    data = rt.open_data(None, model)
    bench = Workbench(model, data, CPU)
    computed = peak_activation_bytes(bench.index, bench.shapes)
    measured = measured_peak_activations(bench)
    assert computed is not None
    assert measured is not None
    assert computed == pytest.approx(measured, rel=0.25)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_caches_that_a_decoder_gives_are_held_to_the_end() -> None:
    model = plain_decoder(3)
    bench = Workbench(model, rt.open_data(None, model), CPU)
    measured = measured_peak_activations(bench)
    assert measured is not None
    assert bench.cost.peak_activation_bytes == pytest.approx(measured, rel=0.25)
    assert bench.cost.peak_activation_bytes == model_cost(index_of(model), bench.shapes).peak_activation_bytes

"""Models exported by several frameworks, through the commands a user gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.graph.files import load
from redtest_onnx.graph.validity import full_check
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.verify import verify, verify_removal
from redtest_onnx.runtime.workbench import Workbench

FOLDER = Path(__file__).parent / "fixtures" / "interop"
FILES = sorted(FOLDER.glob("*.onnx"))
CPU = rt.RunOptions("cpu", 1)
SMALL = ["--samples", "8", "--batches", "1", "--threads", "1", "--json", "-"]

# What somebody who knows the network would call its layers: blocks and sub-layers, without the classifier.
LAYERS = {
    "torch_resnet": 3,
    "torch_senet": 3,
    "torch_densenet": 5,
    "torch_encoder": 5,
    "torch_decoder": 5,
    "torch_lstm": 2,
    "torch_gru": 2,
    "keras_resnet": 3,
    "keras_recurrent": 2,
    "jax_mlp": 4,
    "jax_cnn": 4,
}

# Those of which no layer can go, for a reason that `inspect` gives.
RIGID = ("keras_recurrent", "sklearn_forest", "sklearn_pca")


def document(*arguments: object, capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    assert run([str(argument) for argument in arguments]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_inspect_finds_the_layers(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = document("inspect", path, "--json", "-", capsys=capsys)["layers"]
    assert all(layer["removable"] or layer["reason"] for layer in layers)
    framework, network, *_ = path.stem.split("_")
    expected = LAYERS.get(f"{framework}_{network}")
    assert expected is None or len(layers) == expected


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_analyze_measures_them(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = document("inspect", path, "--json", "-", capsys=capsys)["layers"]
    if len(layers) < 2:
        assert run(["analyze", str(path), *SMALL]) == 2
        assert "two are needed" in capsys.readouterr().err
        return
    found = document("analyze", path, *SMALL, capsys=capsys)
    assert len(found["layers"]) == len(layers)
    assert found["msrs"]["pairs"] + found["msrs"].get("undefined", 0) <= len(layers) * (len(layers) - 1) // 2


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_layer_is_removed_and_verified(path: Path) -> None:
    model = rt.load(path)
    data = rt.open_data(None, model, count=8)
    bench = Workbench(model, data, CPU)
    removable = [layer for layer in bench.layers() if layer.removable]
    assert bool(removable) != path.stem.startswith(RIGID)
    for layer in removable[:1]:
        plan = Plan("test", model.sha256, (Step.of(layer),))
        pruned = apply_plan(bench, plan)
        verify_removal(bench, pruned, plan)
        verify(bench, bench.successor(pruned))


# Latencies take seconds, so the whole command runs on one model of each framework only.
@pytest.mark.parametrize(
    "path",
    [FOLDER / f"{name}.onnx" for name in ("torch_resnet_script_op9", "keras_resnet_op13", "jax_mlp_op21")]
    + sorted(FOLDER.glob("sklearn_*.onnx")),
    ids=lambda p: p.stem,
)
def test_prune_removes_one_or_says_why_not(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.onnx"
    layers = document("inspect", path, "--json", "-", capsys=capsys)["layers"]
    removable = any(layer["removable"] for layer in layers)
    code = 0 if removable else 1  # what was asked for can't be done
    found = document("prune", path, "--remove", 1, "-o", output, *SMALL, capsys=capsys, code=code)
    if not removable:
        assert not output.exists()
        assert all(layer["reason"] for layer in found["layers"])
        return
    assert len(found["plan"]["steps"]) == 1
    full_check(load(output))
    before, after = onnx.load(path), onnx.load(output)
    assert list(before.graph.input) == list(after.graph.input)
    assert list(before.graph.output) == list(after.graph.output)


def test_all_frameworks_are_there_with_their_provenance() -> None:
    frameworks = {path.stem.split("_")[0] for path in FILES}
    assert frameworks >= {"torch", "keras", "sklearn", "jax"}
    told = (FOLDER / "PROVENANCE.md").read_text(encoding="utf-8")
    for path in FILES:
        assert f"`{path.name}`" in told
        assert path.stat().st_size <= 100_000
        assert b"stack_trace" not in path.read_bytes()  # would name files of the exporting machine

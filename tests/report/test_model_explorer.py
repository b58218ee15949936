"""Node data: keyed by tensors that the graph has, with what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from redtest_onnx.cli.main import run

MODELS = Path(__file__).parents[2] / "models"


def test_node_data_is_keyed_by_tensors_of_the_graph(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = MODELS / "vit_digits.onnx", MODELS / "digits.npz"
    arguments = ["prune", str(model), "--data", str(data), "--samples", "16", "--remove", "2", "--dry-run"]
    assert run([*arguments, "--model-explorer", str(tmp_path / "vit.json")]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "vit.macs.json",
        "vit.removed.json",
        "vit.similarity.json",
    ]
    tensors = {name for node in onnx.load(model).graph.node for name in node.output}
    for path in tmp_path.iterdir():
        found = json.loads(path.read_text())
        assert set(found) <= {"results", "gradient"}
        assert found["results"]
        assert set(found["results"]) <= tensors
        assert all(isinstance(entry["value"], int | float) for entry in found["results"].values())
    removed = json.loads((tmp_path / "vit.removed.json").read_text())["results"]
    assert sum(entry["value"] for entry in removed.values()) == 2
    assert run([*arguments, "--model-explorer", str(tmp_path / "vit.json")]) == 2

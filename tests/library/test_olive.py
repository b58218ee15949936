"""The pass for Olive, run by Olive itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("olive", reason="needs Olive: pip install olive-ai")

import redtest_onnx as rt

pytestmark = pytest.mark.filterwarnings("ignore")  # of Olive's own dependencies

MODELS = Path(__file__).parents[2] / "models"
MODEL, DATA = MODELS / "vgg_digits.onnx", MODELS / "digits.npz"


def workflow(folder: Path, **config: Any) -> dict[str, Any]:
    return {
        "input_model": {"type": "ONNXModel", "model_path": str(MODEL)},
        "passes": {"prune": {"type": "RedtestPrune", "data": str(DATA), "repair": "none", **config}},
        "output_dir": str(folder / "out"),
        "cache_dir": str(folder / "cache"),
    }


def test_a_workflow_prunes_as_the_library_does(tmp_path: Path) -> None:
    from olive.workflows import run

    from redtest_onnx.library.olive_package import main

    package = tmp_path / "package.json"
    assert main([str(package)]) == 0
    passes = json.loads(package.read_text(encoding="utf-8"))["passes"]
    assert {"RedtestPrune", "OnnxQuantization"} <= passes.keys()
    run(workflow(tmp_path, remove=2, protect=["features.36"]), package_config=str(package))
    found = rt.load(tmp_path / "out" / "model.onnx")
    expected = rt.prune(MODEL, DATA, rt.PruneSettings(repair="none"), remove=2, protect=["features.36"])
    assert found.proto.graph == expected.model.proto.graph


def test_what_can_not_be_done_fails_the_pass(tmp_path: Path) -> None:
    from olive.model import ONNXModelHandler
    from olive.passes.olive_pass import create_pass_from_dict

    from redtest_onnx.library.olive_pass import RedtestPrune

    def result(**config: Any) -> object:
        made = create_pass_from_dict(RedtestPrune, {"data": str(DATA), "repair": "none", **config}, True)
        return made.run(ONNXModelHandler(model_path=str(MODEL)), str(tmp_path / "out.onnx"))

    with pytest.raises(rt.InputError, match="criterion"):
        result(criterion="none of them", remove=1)
    with pytest.raises(rt.NegativeVerdictError):
        result(protect=["*"], remove=1)
    assert not (tmp_path / "out.onnx").exists()

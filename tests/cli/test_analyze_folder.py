"""`analyze` over a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from redtest_onnx.cli.main import run

MODELS = Path(__file__).parents[2] / "models"


def call(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


def test_every_model_is_analysed_as_if_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("resnet_digits.onnx", "vgg_digits.onnx"):
        shutil.copy(MODELS / name, tmp_path)
    (tmp_path / "broken.onnx").write_bytes(b"")
    options = ("--data", MODELS / "digits.npz", "--samples", 32, "--batches", 2, "--json", "-")
    assert call("analyze", tmp_path, "--workers", 2, *options) == 0
    many = json.loads(capsys.readouterr().out)
    assert [Path(item["path"]).name for item in many["failed"]] == ["broken.onnx"]
    assert many["failed"][0]["reason"] == "the file is empty"
    assert call("analyze", tmp_path / "vgg_digits.onnx", *options) == 0
    alone = json.loads(capsys.readouterr().out)
    assert [Path(item["model"]["path"]).name for item in many["models"]] == [
        "resnet_digits.onnx",
        "vgg_digits.onnx",
    ]
    for changing in ("timing", "memory"):
        del alone[changing], many["models"][1][changing]
    assert many["models"][1] == alone


def test_folders_without_models_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("analyze", tmp_path) == 2
    assert "has no .onnx files" in capsys.readouterr().err
    (tmp_path / "broken.onnx").write_bytes(b"")
    assert call("analyze", tmp_path) == 2
    assert "no model could be analysed" in capsys.readouterr().err
    assert call("analyze", tmp_path, "--html", tmp_path / "page.html") == 2
    assert "for one model" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--workers", 2), ("--engine", "ray"), ("--address", "127.0.0.1:1")])
def test_engines_are_for_folders(options: tuple[object, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("analyze", MODELS / "vgg_digits.onnx", *options) == 2
    assert "are for many models" in capsys.readouterr().err

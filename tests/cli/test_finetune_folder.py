"""A folder is fine-tuned into a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from redtest_onnx.cli.main import run
from redtest_onnx.graph.files import load
from tests.data.test_text import lines, saved
from tests.decoders import encoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "encoder"
    made.mkdir()
    saved(encoder(1), made)
    (made / "config.json").write_text('{"num_hidden_layers": 1}')
    lines(tmp_path, ["red green", "blue", "green blue red"] * 6)
    return made


def finetuned(folder: Path, *more: str) -> int:
    data = ["--data", str(folder.parent / "texts.txt"), "--epochs", "1", "--batch-size", "4"]
    return run(["finetune", str(folder), "--teacher", str(folder), *data, "--optimizer", "sgd", "-q", *more])


def test_a_folder_becomes_a_folder(folder: Path) -> None:
    assert finetuned(folder) == 0
    made = folder.with_name("encoder.finetuned")
    assert {path.name for path in made.iterdir()} == {path.name for path in folder.iterdir()}
    assert json.loads((made / "config.json").read_text()) == {"num_hidden_layers": 1}
    before, after = load(folder).proto.graph, load(made).proto.graph
    assert list(before.node) == list(after.node)
    assert finetuned(folder) == 2  # it is there already
    assert finetuned(folder, "--force", "-o", str(made)) == 0


def test_files_of_one_network_are_not_trained_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("decoder_model.onnx", "decoder_with_past_model.onnx"):
        shutil.copyfile(folder / "model.onnx", folder / name)
    (folder / "model.onnx").unlink()
    assert finetuned(folder) == 2
    assert "hold the same network" in capsys.readouterr().err
    assert not folder.with_name("encoder.finetuned").exists()

from __future__ import annotations

import json
from pathlib import Path

import pytest

import redtest_onnx as rt
from redtest_onnx.cli.main import main
from redtest_onnx.errors import InputError
from redtest_onnx.graph.files import load, save
from redtest_onnx.graph.model_folder import RemovedBlocks, corrected_config, open_folder
from redtest_onnx.runtime.generate import generate
from redtest_onnx.runtime.session import RunOptions, Session
from tests.decoders import fused_decoder

CPU = RunOptions("cpu", 1)


def genai_folder(folder: Path, layers: int = 4) -> Path:
    folder.mkdir()
    save(fused_decoder(layers), folder / "model.onnx")
    decoder = {"filename": "model.onnx", "num_hidden_layers": layers, "sliding_window": {"layers": [1, 3]}}
    genai = {"model": {"type": "llama", "decoder": decoder}}
    config = {"num_hidden_layers": layers, "layer_types": ["a", "b", "c", "d"], "hidden_size": layers}
    (folder / "genai_config.json").write_text(json.dumps(genai), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    return folder


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


def test_configurations_count_the_blocks_that_are_left() -> None:
    removed = RemovedBlocks(4, (1,))
    document = {
        "num_hidden_layers": 4,
        "hidden_size": 4,
        "layer_types": ["a", "b", "c", "d"],
        "max_window_layers": 3,
        "text_config": {"n_layer": 4},
        "vision_config": {"num_hidden_layers": 4},
        "model": {"decoder": {"num_hidden_layers": 4, "sliding_window": {"layers": [0, 1, 3]}}},
    }
    assert corrected_config(document, removed) == {
        "num_hidden_layers": 3,
        "hidden_size": 4,
        "layer_types": ["a", "c", "d"],
        "max_window_layers": 2,
        "text_config": {"n_layer": 3},
        "vision_config": {"num_hidden_layers": 4},
        "model": {"decoder": {"num_hidden_layers": 3, "sliding_window": {"layers": [0, 2]}}},
    }
    assert corrected_config(
        {"num_layers": 4, "num_decoder_layers": 4}, RemovedBlocks(4, (0,), "decoder")
    ) == {
        "num_layers": 4,
        "num_decoder_layers": 3,
    }


def test_a_folder_comes_out_like_it_went_in(tmp_path: Path) -> None:
    source, output = genai_folder(tmp_path / "source"), tmp_path / "smaller"
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    arguments = ["prune", str(source), "-o", str(output), "--remove", "1", "--granularity", "block", "-q"]
    arguments += [
        "--samples",
        "16",
        "--batches",
        "1",
        "--device",
        "cpu",
        "--json",
        str(tmp_path / "out.json"),
    ]
    assert run(*arguments) == 0
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    assert {path.name for path in output.iterdir()} == set(before)
    document = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    gone = int(document["plan"]["steps"][0]["region"].split(".")[1])
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    assert config["num_hidden_layers"] == 3
    assert config["hidden_size"] == 4
    assert config["layer_types"] == [name for k, name in enumerate("abcd") if k != gone]
    genai = json.loads((output / "genai_config.json").read_text(encoding="utf-8"))
    assert genai["model"]["decoder"]["num_hidden_layers"] == 3
    removed = [change["name"] for change in document["signature_changes"] if change["becomes"] is None]
    assert removed == [
        f"{name}.{gone}.{what}" for name in ("past_key_values", "present") for what in ("key", "value")
    ]
    assert generate(Session(load(output), CPU), (3, 8), 4).agree
    assert run(*arguments) == 2  # the folder exists


def test_folders_without_a_model_or_with_too_many_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no ONNX file"):
        rt.load(tmp_path)
    for name in ("a.onnx", "b.onnx"):
        save(fused_decoder(1), tmp_path / name)
    with pytest.raises(InputError, match=r"several models: a\.onnx, b\.onnx"):
        open_folder(tmp_path)
    save(fused_decoder(1), tmp_path / "model.onnx")
    assert open_folder(tmp_path).model.name == "model.onnx"

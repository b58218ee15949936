"""Large weights that stay in the file they were read from: the same model in all that can be seen."""

from __future__ import annotations

import hashlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.graph import files
from redtest_onnx.graph.files import load, save
from redtest_onnx.graph.model import Model, is_external
from redtest_onnx.graph.parsing import read_outline
from redtest_onnx.graph.streaming import serialised_size, write_serialised
from redtest_onnx.runtime.session import Session
from redtest_onnx.weight_sparsity.apply import apply_masks, chosen_weights, full_masks

ROOT = Path(__file__).parents[2]
FILES = sorted((*(ROOT / "models").glob("*.onnx"), *(ROOT / "tests" / "fixtures").rglob("*.onnx")))
MODEL, DATA = ROOT / "models" / "resnet_digits.onnx", ROOT / "models" / "digits.npz"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="weights stay in no file there")


@pytest.fixture
def leaving(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every file was large, and every weight of a kilobyte."""
    monkeypatch.setattr(files, "_LARGE", 0)
    monkeypatch.setattr(files, "read_outline", partial(read_outline, least=1 << 10))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_put_together_again(path: Path, tmp_path: Path) -> None:
    whole = onnx.load(path, load_external_data=False)
    proto = read_outline(path, least=64)
    if proto is None:
        assert any(map(is_external, whole.graph.initializer))
        return
    model = Model(proto, None, path.parent, weights_in=path)
    content = whole.SerializeToString(deterministic=True)
    assert model.serialised() == content
    write_serialised(model, tmp_path / "written.onnx")
    assert (tmp_path / "written.onnx").read_bytes() == content
    assert serialised_size(model) == model.file_bytes == len(content)
    assert model.sha256 == hashlib.sha256(content).hexdigest()
    assert model.external_files == ()
    for left, held in zip(model.graph.initializer, whole.graph.initializer, strict=True):
        np.testing.assert_array_equal(model.value(left), numpy_helper.to_array(held))


def test_what_onnx_does_not_know_stays(tmp_path: Path) -> None:
    content = MODEL.read_bytes() + b"\xaa\x06\x03abc"  # field 101 of the model
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    proto = read_outline(path, least=1 << 10)
    assert proto is not None
    assert Model(proto, None, tmp_path, weights_in=path).serialised().endswith(b"\xaa\x06\x03abc")


def results(folder: Path, *options: str) -> tuple[bytes, Any]:
    folder.mkdir()
    output, document = folder / "o.onnx", folder / "o.json"
    command = ["prune", str(MODEL), "--data", str(DATA), *options, "--threads", "1", "-q"]
    assert run([*command, "-o", str(output), "--json", str(document)]) == 0
    found = json.loads(document.read_text())
    for name in ("provenance", "output", "created", "written"):
        found.pop(name, None)
    return output.read_bytes(), found.get("plan")


@pytest.mark.parametrize("repair", ["none", "refit"])
def test_pruning_gives_the_same_file(tmp_path: Path, repair: str, request: pytest.FixtureRequest) -> None:
    options = ("--remove", "3", "--repair", repair)
    expected = results(tmp_path / "held", *options)
    request.getfixturevalue("leaving")
    assert rt.load(MODEL).weights_in == MODEL.resolve()
    assert results(tmp_path / "left", *options) == expected
    assert [path.name for path in (tmp_path / "left").iterdir() if path.suffix != ".json"] == ["o.onnx"]


def test_links_to_a_model_are_followed(tmp_path: Path, leaving: None) -> None:
    folder = tmp_path / "snapshot"
    folder.mkdir()
    link = folder / "model.onnx"
    link.symlink_to(MODEL)
    model = load(link)
    x = np.load(DATA)["calibration/input"][:2]
    expected = Session(Model(onnx.load(MODEL))).run({"input": x})
    assert model.weights_in == MODEL.resolve()
    for name, value in Session(model).run({"input": x}).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6)


def test_another_file_in_its_place_is_told(tmp_path: Path, leaving: None) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(MODEL.read_bytes())
    model = load(path)
    edited = model.edited(model.proto)
    saved = save(edited, path, force=True)  # over the very file: read before it is replaced
    assert path.read_bytes() == MODEL.read_bytes()
    np.testing.assert_array_equal(
        saved.value(saved.graph.initializer[0]), load(MODEL).value(model.graph.initializer[0])
    )
    for use in (
        lambda: edited.value(next(filter(is_external, edited.graph.initializer))),
        lambda: Session(edited),
    ):
        with pytest.raises(rt.InputError, match="changed or removed after it was read"):
            use()


def test_the_zeros_of_pruned_weights_go_into_one_file(tmp_path: Path, leaving: None) -> None:
    def pruned(model: Model, folder: Path | None) -> bytes:
        weights = chosen_weights(model)
        masks = full_masks(weights)
        masks[0][:] = False
        save(apply_masks(model, weights, masks, folder), tmp_path / "o.onnx", force=True)
        return (tmp_path / "o.onnx").read_bytes()

    assert pruned(load(MODEL), tmp_path) == pruned(Model(onnx.load(MODEL)), None)
    assert [path.name for path in tmp_path.iterdir()] == ["o.onnx"]


def stored(path: Path, tensor: onnx.TensorProto) -> Path:
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", given, made, [tensor])
    path.write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())
    return path


def test_what_is_amiss_is_told_as_of_any_file(tmp_path: Path, leaving: None) -> None:
    tensor = numpy_helper.from_array(np.ones((16, 16), np.float32), "w")
    tensor.raw_data = tensor.raw_data[:-4]
    with pytest.raises(rt.InputError, match="take 1024 bytes, the file holds 1020"):
        load(stored(tmp_path / "short.onnx", tensor))


@pytest.mark.parametrize("field", ["float_data", "external_data"])
def test_other_forms_of_values_are_read_as_ever(tmp_path: Path, field: str) -> None:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [16, 16], [1.0] * 256)
    if field == "external_data":
        tensor = numpy_helper.from_array(np.ones((16, 16), np.float32), "w")
        (tmp_path / "w.bin").write_bytes(tensor.raw_data)
        onnx.external_data_helper.set_external_data(tensor, "w.bin")
        tensor.ClearField("raw_data")
    proto = read_outline(stored(tmp_path / "m.onnx", tensor), least=64)
    assert proto is None if field == "external_data" else proto == onnx.load(tmp_path / "m.onnx")

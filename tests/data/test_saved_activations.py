"""Activations that were written come back, and are measured like the layers they were."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.data.activation_files import INDEX
from redtest_onnx.data.saved_activations import holds_activations, read_activations

ROOT = Path(__file__).parents[2]
MODEL, DIGITS = ROOT / "models" / "vgg_digits.onnx", ROOT / "models" / "digits.npz"
CPU = rt.RunOptions("cpu", 1)
ONCE = rt.AnalysisSettings(layers="all", samples=48, batches=1, threshold=0.7)


@pytest.fixture(scope="module", params=["values.npz", "values", "values.parquet"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="needs pyarrow: the extra data")
    path = tmp_path_factory.mktemp("saved") / request.param
    options = ["--data", str(DIGITS), "--samples", "48", "--save", str(path), "-q"]
    assert run(["expose", str(MODEL), *options]) == 0
    return path


@pytest.fixture(scope="module")
def measured() -> rt.Analysis:
    with np.load(DIGITS) as arrays:
        name = next(name for name in ("calibration/input", "input") if name in arrays.files)
        images = arrays[name][:48]
    return rt.analyze(MODEL, images, ONCE, CPU)


def test_saved_activations_are_measured_as_the_model_is(saved: Path, measured: rt.Analysis) -> None:
    assert holds_activations(saved)
    found = rt.analyze(saved, None, ONCE, CPU)
    inner = [k for k, layer in enumerate(measured.layers) if layer.tensor != "logits"]
    names = [
        measured.layers[k].tensor
        for k in inner
        if measured.layers[k].tensor in read_activations(saved).arrays
    ]
    assert len(names) >= len(measured.layers) - 1
    theirs = [next(k for k in inner if measured.layers[k].tensor == name) for name in names]
    ours = [next(k for k, layer in enumerate(found.layers) if layer.tensor == name) for name in names]
    np.testing.assert_allclose(
        found.similarity[np.ix_(ours, ours)], measured.similarity[np.ix_(theirs, theirs)], atol=1e-4
    )


def test_commands_read_them(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "analysis.json"
    assert run(["analyze", str(saved), "--samples", "48", "--json", str(target), "-q"]) == 0
    document = json.loads(target.read_text(encoding="utf-8"))
    assert len(document["layers"]) == len(read_activations(saved).arrays)
    assert document["msrs"]["value"] > 0
    assert run(["compare", str(saved), str(saved), "--json", str(tmp_path / "c.json"), "-q"]) == 0
    assert run(["compare", str(saved), str(saved), "--samples", "8"]) == 2
    assert "--samples does nothing here" in capsys.readouterr().err
    for option in ("--other-data", "--data"):  # without a word, the file was compared with itself
        assert run(["compare", str(saved), option, str(saved)]) == 2
        assert f"{option} does nothing here" in capsys.readouterr().err
    cka = np.array(json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))["cka"])
    np.testing.assert_allclose(np.diag(cka), 1, atol=1e-6)
    capsys.readouterr()
    assert run(["analyze", str(saved), "--data", str(DIGITS)]) == 2
    assert "--data and --layers are for models" in capsys.readouterr().err


def test_what_is_no_activation_is_left_out_with_the_reason(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "v.npz"
    floats = {"/a": rng.normal(size=(9, 4)), "b": rng.normal(size=(9, 2, 3)).astype(np.float16)}
    np.savez(path, **floats, ids=np.arange(9), table=np.eye(3))
    found = read_activations(path)
    assert list(found.arrays) == ["/a", "b"]
    assert dict(found.others).keys() == {"ids", "table"}
    assert len(rt.analyze(path, None, rt.AnalysisSettings(layers="all"), CPU).layers) == 2
    np.savez(path, a=np.zeros((9, 2)))
    with pytest.raises(rt.InputError, match="1 tensor of activations"):
        read_activations(path)


def test_an_index_names_files_of_its_folder_only(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"a": "../secret.npy"}), encoding="utf-8")
    with pytest.raises(rt.InputError, match="is not a list of files"):
        read_activations(tmp_path)

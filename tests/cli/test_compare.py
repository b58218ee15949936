"""`compare` as a person uses it: what is asked for is there, or is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from output_models import Graph, floats

import redtest_onnx as rt
from redtest_onnx.cli.main import run

MODELS = Path(__file__).parents[2] / "models"
MODEL, DATA = str(MODELS / "resnet_digits.onnx"), str(MODELS / "digits.npz")
FEW = ["--samples", "16", "--batches", "1", "--threads", "1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layers", "zzz"], "no layer is called 'zzz'"),
        (["--diverges-below", "nan"], "--diverges-below is nan"),
    ],
)
def test_what_is_named_wrongly_is_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", MODEL, MODEL, "--data", DATA, *options, *FEW]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--diverges-below", "30"], ["--all-tensors"]])
def test_options_of_tensors_are_for_two_models(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", MODEL, "--data", DATA, "--other-data", DATA, *option, *FEW]) == 2
    assert f"{option[0]} does nothing here" in capsys.readouterr().err


def test_saved_activations_take_no_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "a.npz"
    np.savez(saved, one=np.random.default_rng(0).random((16, 4), np.float32))
    assert run(["compare", str(saved), str(saved), "--data", DATA]) == 2
    assert "--data does nothing here" in capsys.readouterr().err
    assert run(["compare", str(saved), str(saved)]) == 0


@pytest.mark.parametrize("view", [["--html", "x.html"], ["--format", "markdown"]])
def test_views_of_similarity_need_layers(
    view: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    g = Graph(0)
    g("Neg", g.feed("x", 4), to="y")
    rt.save(g.model(floats("y")), "m.onnx")
    assert run(["compare", "m.onnx", "m.onnx", *FEW, *view]) == 2
    assert "the similarity of layers can't be measured" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()
    assert run(["compare", "m.onnx", "m.onnx", *FEW, "--json", "x.json"]) == 0

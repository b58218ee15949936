"""`sparsity` as a person or a CI job uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from redtest_onnx.cli.main import run

MODELS = Path(__file__).parents[2] / "models"
VGG = MODELS / "vgg_digits.onnx"


def call(*arguments: object) -> int:
    return run(["sparsity", *map(str, arguments)])


def document(*arguments: object, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert call(*arguments, "--json", "-") == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_every_tensor_and_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(VGG, capsys=capsys)
    assert found["schema"] == "redtest-onnx/sparsity/1"
    assert found["model"]["macs"] > 1e6
    assert found["weights"] == sum(tensor["elements"] for tensor in found["tensors"])
    assert [(group["p"], group["q"]) for group in found["overall"]] == [(0.5, 1.0), (1.0, 2.0)]
    shares = found["overall"][0]["retained_share_by_scope"]
    assert 0.7 < shares["global"] < shares["neuron"] < 0.9
    first = found["tensors"][0]
    assert first["groups"][0]["neurons"]["count"] == 16
    assert 0 < first["groups"][0]["pq_index"] < 1


def test_exponents_are_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(VGG, "--pq", "0.05,1", "--eta", "0.1", capsys=capsys)
    assert [(group["p"], group["q"]) for group in found["overall"]] == [(0.05, 1.0)]
    assert found["eta"] == 0.1


def test_words_say_what_the_bound_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(VGG) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "112,368 weights in 13 tensors" in shown
    assert "candidates for pruning" in shown


def test_figure_and_page(tmp_path: Path) -> None:
    figure, page = tmp_path / "weights.svg", tmp_path / "weights.html"
    assert call(VGG, "--figure", figure, "--html", page) == 0
    assert "PQ Index" in page.read_text(encoding="utf-8")
    assert figure.read_text(encoding="utf-8").startswith("<?xml")
    assert call(VGG, "--figure", figure) == 2


@pytest.mark.parametrize("pair", ["1,1", "2,1", "0.5", "a,b"])
def test_wrong_exponents_are_refused(pair: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(VGG, "--pq", pair) == 2
    assert capsys.readouterr().err

"""`sparsity` as a person or a CI job uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quarters import network, samples

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.weight_sparsity.measure import measure_sparsity

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


def test_one_shot_pruning_reports_what_it_bought(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "sparse.onnx"
    arguments = [
        VGG,
        "--data",
        MODELS / "digits.npz",
        "-o",
        output,
        "--method",
        "one-shot",
        "--amount",
        "0.3",
    ]
    found = document(*arguments, "--figure", tmp_path / "sparse.svg", capsys=capsys)
    assert "30.0% zeros" in (tmp_path / "sparse.svg").read_text(encoding="utf-8")
    original, *_, last = found["stages"]
    assert last["nonzero"] == pytest.approx(0.7 * original["nonzero"], rel=0.01)
    assert last["compressed_bytes"] < 0.85 * original["compressed_bytes"]
    assert original["accuracy"] - last["accuracy"] < 0.05
    assert last["latency_ms"]["p50"] > 0
    assert sum(item["weights"] for item in found["shares"]) == pytest.approx(1)
    assert measured_zeros(output) == pytest.approx(0.3, abs=0.01)
    assert call(*arguments) == 2
    assert call(*arguments, "--force") == 0
    assert "multiplies by them all the same" in " ".join(capsys.readouterr().out.split())


def measured_zeros(path: Path) -> float:
    found = measure_sparsity(rt.load(path))
    return found.zeros / found.elements


def test_layers_and_weights_in_one_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(
        *(MODELS / "resnet_digits.onnx", "--data", MODELS / "digits.npz", "-o", tmp_path / "small.onnx"),
        *("--method", "one-shot", "--amount", "0.3", "--remove-layers", "4"),
        capsys=capsys,
    )
    names = [stage["name"] for stage in found["stages"]]
    assert names[:3] == ["original", "layers removed", "weights zeroed"]
    layers, zeroed = found["shares"][:2]
    assert layers["weights"] > 0.2
    assert zeroed["weights"] > 0.2
    assert found["stages"][1]["macs"] < found["stages"][0]["macs"]
    assert found["stages"][2]["nonzero"] == pytest.approx(0.7 * found["stages"][1]["nonzero"], rel=0.01)


def test_sap_with_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    model, data, output = (tmp_path / name for name in ("net.onnx", "data.npz", "sap.onnx"))
    rt.save(network(), model)
    quarters = samples()
    np.savez(data, labels=quarters.classes, **quarters.inputs(range(len(quarters))))
    arguments = [model, "--data", data, "-o", output, "--method", "sap", "--pq", "1,2"]
    arguments += ["--iterations", "2", "--epochs", "4", "--lr", "0.1", "--max-drop", "0.05"]
    found = document(*arguments, "--checkpoints", tmp_path / "run", capsys=capsys)
    assert [record["number"] for record in found["iterations"]] == [0, 1, 2]
    assert found["settings"]["bound"]["q"] == 2
    chosen = next(record for record in found["iterations"] if record["chosen"])
    assert chosen["kept"] < 0.7 * chosen["weights"]
    assert found["stages"][-1]["accuracy"] > 0.9
    assert measured_zeros(output) > 0.3
    assert len(list((tmp_path / "run").glob("*.pt"))) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        ["--method", "sap", "--pq", "0.5,1", "--pq", "1,2"],
        ["--method", "lottery", "--epochs", "0"],
        ["--method", "one-shot", "--amount", "1.5"],
        ["--method", "one-shot", "--protect", "nothing"],
        ["--method", "sap", "--beta", "2"],
        ["--method", "sap", "--amount", "0.2"],
        ["--method", "lottery", "--gamma", "2"],
        ["--method", "one-shot", "--lr", "0.1"],
        ["--amount", "0.5"],
    ],
)
def test_wrong_requests_are_refused_before_any_work(
    wrong: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(VGG, *wrong) == 2
    assert not list(tmp_path.iterdir())

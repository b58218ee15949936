"""`rank` as a person uses it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nets import Net
from PIL import Image

from redtest_onnx.cli.main import run

MODELS = Path(__file__).parents[2] / "models"


def call(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


def document(*arguments: object, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert call(*arguments, "--json", "-") == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def small_model(width: int, depth: int) -> onnx.ModelProto:
    """A chain of convolutions with a classifier of three classes; larger or deeper, other weights."""
    net = Net(input=["n", 1, 4, 4])
    x, channels = "input", 1
    for _ in range(depth):
        x = net("Relu", net.conv(x, channels, width))
        channels = width
    x = net("Flatten", net("GlobalAveragePool", x))
    return net.model(net("MatMul", x, net.weight(channels, 3), name="logits")).proto


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "data.npz"
    images = rng.random((24, 1, 4, 4), np.float32)
    np.savez(path, input=images, labels=rng.integers(0, 3, 24))
    return path


def test_a_folder_of_200_files_with_five_broken_ones(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [small_model(width, depth).SerializeToString() for width in (2, 3, 4) for depth in (2, 3, 4)]
    for k in range(195):
        (tmp_path / f"model{k:03}.onnx").write_bytes(good[k % len(good)])
    broken = {
        "cut.onnx": good[0][: len(good[0]) // 2],
        "empty.onnx": b"",
        "text.onnx": b"no model at all",
        "operator.onnx": good[0].replace(b"GlobalAveragePool", b"GlobalAverageXool"),
        "shape.onnx": small_wrong_input(),
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    found = document("rank", tmp_path, "--data", data, "--samples", 24, capsys=capsys)
    assert len(found["ranking"]) == 195
    assert {Path(item["name"]).name for item in found["unranked"]} == set(broken)
    assert all(item["reason"] for item in found["unranked"])
    assert [row["place"] for row in found["ranking"]] == list(range(1, 196))
    scores = [row["scores"]["S3"] for row in found["ranking"]]
    assert scores == sorted(scores, reverse=True)
    assert found["expected_msrs"]["points"] == 195


def small_wrong_input() -> bytes:
    net = Net(input=[1, 3, 9, 9])
    return net.model(net("Relu", net.conv("input", 3, 2), name="logits")).proto.SerializeToString()


def test_text_names_what_was_not_ranked(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.onnx").write_bytes(small_model(3, 3).SerializeToString())
    (tmp_path / "bad.onnx").write_bytes(b"")
    assert call("rank", tmp_path, "--data", data, "--samples", 24) == 0
    out = capsys.readouterr().out
    assert "1 candidate by S3" in out
    assert "1 not ranked" in out
    assert "bad.onnx: the file is empty" in out


def test_metrics_take_the_place_of_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, width in (("small", 2), ("large", 4)):
        (tmp_path / f"{name}.onnx").write_bytes(small_model(width, 3).SerializeToString())
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        rows = [("name", "accuracy", "latency_ms"), ("small.onnx", 0.7, 1.0), ("large", 0.9, "")]
        csv.writer(file).writerows(rows)
    options = ("--samples", 24, "--batches", 1, "--metrics", table, "--cost", "latency")
    found = document("rank", tmp_path, *options, "--by", "S1", capsys=capsys)
    large, small = found["ranking"]
    assert (large["accuracy"], small["accuracy"]) == (0.9, 0.7)
    assert small["latency_ms"] == 1.0
    assert 0 < large["latency_ms"] < 1.0


def test_workers_find_the_same(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(4):
        (tmp_path / f"{k}.onnx").write_bytes(small_model(2 + k, 3).SerializeToString())
    (tmp_path / "broken.onnx").write_bytes(b"")
    options = ("rank", tmp_path, "--data", data, "--samples", 24)
    assert document(*options, capsys=capsys) == document(*options, "--workers", 2, capsys=capsys)


def test_samples_are_prepared_as_in_other_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, images = tmp_path / "model.onnx", tmp_path / "images"
    model.write_bytes(small_model(3, 3).SerializeToString())
    rng = np.random.default_rng(0)
    for k in range(24):
        file = images / str(k % 3) / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (4, 4), np.uint8)).save(file)
    prepared = tmp_path / "prepared.json"
    prepared.write_text(json.dumps({"image_mean": [0.9], "image_std": [0.1]}))
    options = ("rank", model, "--data", images, "--samples", 24)

    def msrs(*more: object) -> float:
        value: float = document(*options, *more, capsys=capsys)["ranking"][0]["msrs"]
        return value

    assert msrs("--preprocess", prepared) == msrs("--mean", 0.9, "--std", 0.1) != msrs()


def test_picture_and_refusals(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(small_model(3, 3).SerializeToString())
    picture = tmp_path / "rank.png"
    assert call("rank", model, "--data", data, "--png", picture) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert call("rank", model, "--data", data, "--png", picture) == 2
    assert "--force" in capsys.readouterr().err
    assert call("rank", model) == 2
    assert "its accuracy is unknown" in capsys.readouterr().err
    (tmp_path / "bad.csv").write_text("name,accuracy\nmodel,92.5\n")
    assert call("rank", model, "--metrics", tmp_path / "bad.csv") == 2
    assert "0.925" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("name,acc\nmodel,0.9\n", "no column accuracy (found: name, acc)"),
        ("name,Accuracy\nmodel,0.9\n", "no column accuracy (found: name, Accuracy)"),
        ("name,accuracy\nresnet,0.9\nvgg.onnx,0.8\n", "no row model.onnx (found: resnet, vgg.onnx)"),
        ("name,accuracy\nmodel,\n", "an empty accuracy for model"),
        ("name,accuracy\n" + "".join(f"a{k},0.5\n" for k in range(20)), "a6, a7 and 12 more)"),
    ],
)
def test_what_the_table_lacks_is_said(
    content: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.onnx").write_bytes(small_model(3, 3).SerializeToString())
    table = tmp_path / "table.csv"
    table.write_text(content)
    few = ("--samples", 24, "--batches", 1, "--metrics", table)
    assert call("rank", tmp_path / "model.onnx", *few) == 2
    said = capsys.readouterr().err
    assert f"model.onnx: its accuracy is unknown: {table} has " in said
    assert why in said
    assert "--metrics" not in said


ROWS = """name,accuracy,latency_ms,macs,msrs,jacob_cov
resnet20,0.90,2.0,40,14,-3
resnet32,0.92,3.1,69,47,-2
resnet44,0.93,4.2,98,101,-2.5
resnet56,0.94,5.4,127,158,-1
"""


def test_a_table_is_ranked_without_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.csv"
    table.write_text(ROWS, encoding="utf-8")
    found = document("rank", "--metrics", table, "--cost", "latency", "--best", 2, capsys=capsys)
    assert found["ranking"][0]["name"] == "resnet20"
    assert found["ranking"][0]["parameters"] is None
    assert {row["msrs_from"] for row in found["ranking"]} == {"table"}
    means = {item["score"]: item for item in found["means"]}
    assert means["S1"]["names"] == ["resnet56", "resnet44"]
    assert means["S1"]["msrs"] == pytest.approx(129.5)
    assert means["S3"]["names"] == ["resnet20", "resnet32"]
    proxies = {item["proxy"]: item for item in found["proxies"]}
    assert proxies["msrs"]["spearman"] == pytest.approx(1)
    assert proxies["jacob_cov"]["kendall"] == pytest.approx(2 / 3)
    assert proxies["macs"]["pearson"] == pytest.approx(0.98, abs=0.02)
    figure, page = tmp_path / "rank.svg", tmp_path / "rank.html"
    assert call("rank", "--metrics", table, "--png", figure, "--html", page) == 0
    out = capsys.readouterr().out
    for text in ("MSRS is from the table.", "best by", "Kendall", "Pearson"):
        assert text in out
    drawn = figure.read_text(encoding="utf-8")
    assert "correlation with accuracy" in drawn
    assert "mean MSRS" in drawn
    assert "Means of the best by each score" in page.read_text(encoding="utf-8")


def test_constants_of_redtest_serve_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.csv"
    table.write_text(ROWS, encoding="utf-8")
    options = ("rank", "--metrics", table, "--cost", "latency", "--benchmark-data")
    for data, exponent, beta in (("cifar100", -0.24, 0.2), ("ImageNet16-120", -0.2, 0.5)):
        used = document(*options, data, capsys=capsys)["settings"]
        assert (used["exponent"], used["beta"], used["target"], used["expected"]) == (exponent, beta, 10, 35)


def test_nothing_to_rank_is_refused(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("rank") == 2
    assert "give MODELS, or --metrics" in capsys.readouterr().err
    table = tmp_path / "table.csv"
    table.write_text(ROWS, encoding="utf-8")
    assert call("rank", "--metrics", table, "--data", data) == 2
    assert "--data measures MODELS" in capsys.readouterr().err
    assert call("rank", tmp_path / "search.sqlite", "--data", data) == 2
    assert "--data measures MODELS" in capsys.readouterr().err
    assert call("rank", "--metrics", table, "--cost", "parameters") == 2
    columns = "name, accuracy, latency_ms, macs, msrs, jacob_cov"
    assert f"has no column parameters (found: {columns})" in capsys.readouterr().err

"""`search` as a person uses it: real networks, trained for a moment on the digits."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redtest_onnx.cli.main import run
from redtest_onnx.ranking.accuracy import BENCHMARK_DATA, NatsBench
from redtest_onnx.ranking.score import SCORES
from redtest_onnx.search.topology import TopologySpace

pytest.importorskip("torch", reason="networks need PyTorch: pip install 'redtest-onnx[nas]'")

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "nats_sample"
DIGITS = Path(__file__).parents[2] / "models" / "digits.npz"
QUICK = ("--space", "topology-4x1", "--data", DIGITS, "--epochs", 1, "--population", 3, "--tournament", 2)


def call(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


def document(*arguments: object, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert call(*arguments, "--json", "-") == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def results(found: dict[str, Any]) -> dict[str, tuple[object, ...]]:
    """What must be the same whenever and wherever a candidate is evaluated, but for the last digits."""
    keys = ("accuracy", "test_accuracy", "parameters", "macs", "msrs", "synflow", "naswot")
    return {row["name"]: tuple(f"{row[key]:.4g}" for key in keys) for row in found["ranking"]}


def test_a_search_and_its_continuation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, parts = tmp_path / "whole.sqlite", tmp_path / "parts.sqlite"
    models = tmp_path / "models"
    options = (*QUICK, "--models", models)
    found = document("search", *options, "--evaluations", 5, "--output", whole, capsys=capsys)
    assert found["schema"] == "redtest-onnx/search/1"
    assert len(found["ranking"]) == 5
    assert len(list(models.glob("*.onnx"))) == 5
    assert {item["proxy"] for item in found["proxies"]} >= {"parameters", "macs", "synflow", "naswot"}
    first = document("search", *options, "--evaluations", 3, "--output", parts, capsys=capsys)
    second = document(
        "search", "--resume", parts, "--data", DIGITS, "--evaluations", 5, "--workers", 2, capsys=capsys
    )
    assert (first["evaluated"], second["evaluated"]) == (3, 2)
    assert results(second) == results(found)
    ranked = document("rank", whole, capsys=capsys)
    assert results(ranked) == results(found)
    # The kept networks are models like any others.
    options = ("--data", DIGITS, "--by", "S1", "--samples", 64, "--batches", 1)
    assert len(document("rank", models, *options, capsys=capsys)["ranking"]) == 5
    assert call("search", "--resume", whole, "--epochs", 3) == 2
    assert "not from --epochs" in capsys.readouterr().err
    content = whole.read_bytes()
    assert call("search", *QUICK, "--output", whole) == 2
    said = capsys.readouterr().err
    assert "holds a search already" in said
    assert f"try: --resume {whole} continues it" in said
    assert whole.read_bytes() == content


def test_accuracy_from_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = TopologySpace()
    table = tmp_path / "table.csv"
    rows = [f"{name},{0.1 + 0.8 * (k % 97) / 97},{1 + k % 31}" for k, name in enumerate(space)]
    table.write_text("architecture,accuracy,msrs\n" + "\n".join(rows), encoding="utf-8")
    options = ("--space", "topology-4x1", "--metrics", table, "--strategy", "random", "--evaluations", 4)
    found = document("search", *options, "--output", tmp_path / "s.sqlite", capsys=capsys)
    expected = {name: 0.1 + 0.8 * (k % 97) / 97 for k, name in enumerate(space)}
    for row in found["ranking"]:
        assert row["accuracy"] == pytest.approx(expected[row["name"]])
        assert row["msrs"] >= 1


def test_a_search_does_not_begin_over_its_own_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "t.csv"
    content = "\n".join(["architecture,accuracy", *(f"{name},0.5" for name in TopologySpace())])
    table.write_text(content)
    (tmp_path / "t.db").symlink_to("t.csv")
    options = ["--space", "topology-4x1", "--metrics", table, "--by", "S2", "--output", tmp_path / "t.db"]
    assert call("search", *options, "--force") == 2
    assert "--output would overwrite what is read" in capsys.readouterr().err
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"t.csv": content, "t.db": content}


def test_a_file_without_a_search_is_overwritten_only_by_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.db").write_text("something else")
    assert call("search", *QUICK, "--output", tmp_path / "s.db") == 2
    said = capsys.readouterr().err
    assert "--force overwrites it" in said
    assert "--resume" not in said
    assert (tmp_path / "s.db").read_text() == "something else"


def test_what_can_not_work_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "s.sqlite"
    for options, why in (
        ((), "nothing tells the accuracy"),
        (("--data", DIGITS, "--space", "cells"), "no search space called 'cells'"),
        (("--benchmark", tmp_path), "S3 needs the MSRS of candidates"),
        (("--data", DIGITS, "--beta", -1), "would reward"),
    ):
        assert call("search", *options, "--output", output) == 2
        assert why in capsys.readouterr().err
        assert not output.exists()


@pytest.mark.parametrize(
    ("name", "arrays", "message"),
    [
        ("d.npy", {}, "has no labels to train with"),
        ("d.npz", {"input": 20}, "has no labels to train with"),
        ("d.npz", {"input": 4, "labels": 4}, "too few to train with"),
        ("d.npz", {"input": 20, "labels": 3}, "labels"),
    ],
)
def test_data_to_train_with_is_read_before_there_is_a_file(
    name: str, arrays: dict[str, int], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.zeros((20, 1, 8, 8), np.float32)
    made = {"input": images, "labels": np.arange(20) % 2}
    if arrays:
        np.savez(tmp_path / name, **{key: made[key][:count] for key, count in arrays.items()})
    else:
        np.save(tmp_path / name, images)
    output = tmp_path / "s.sqlite"
    assert call("search", *QUICK[:2], "--data", tmp_path / name, "--epochs", 1, "--output", output) == 2
    assert message in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("option", ["data", "metrics", "benchmark", "models"])
def test_a_search_file_from_elsewhere_reaches_nothing(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it names outside its folder has to be named again by the user."""
    inside, outside = tmp_path / "search", tmp_path / "elsewhere"
    inside.mkdir()
    table, file = inside / "t.csv", inside / "s.sqlite"
    names = "\n".join(f"{name},0.5" for name in TopologySpace())
    table.write_text(f"architecture,accuracy\n{names}\n", encoding="utf-8")
    options = ("--space", "topology-4x1", "--metrics", table, "--by", "S2", "--strategy", "random")
    assert call("search", *options, "--evaluations", 1, "--output", file) == 0
    with closing(sqlite3.connect(file)) as connection, connection:
        changed = json.dumps(str(outside)), option
        assert connection.execute("UPDATE settings SET value = ? WHERE name = ?", changed).rowcount == 1
    capsys.readouterr()
    assert call("search", "--resume", file, "--evaluations", 2) == 2
    assert f"--{option}" in capsys.readouterr().err
    assert not outside.exists()


def test_a_table_with_every_number_is_searched_without_pytorch(tmp_path: Path) -> None:
    """Its rows are the candidates, whatever they are called; nothing is built, exported or timed."""
    table, found = tmp_path / "table.csv", tmp_path / "found.json"
    rows = [f"net{k},{0.5 + k / 1000},{k + 1},{k % 40 + 1}" for k in range(150)]
    table.write_text("architecture,accuracy,macs,msrs\n" + "\n".join(rows) + "\n", encoding="utf-8")
    options = [
        "search",
        "--metrics",
        str(table),
        "--output",
        str(tmp_path / "s.sqlite"),
        "--json",
        str(found),
    ]
    code = (
        "import sys\nfrom redtest_onnx.cli.main import run\n"
        f"code = run({[*options, '--benchmark-data', 'cifar100']!r})\n"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    document = json.loads(found.read_text(encoding="utf-8"))
    assert len(document["ranking"]) == document["evaluated"] == 150
    assert document["settings"]["exponent"] == -0.06
    assert document["settings"]["target"] == 10e6
    assert {row["latency_ms"] for row in document["ranking"]} == {None}
    assert [item["score"] for item in document["means"]] == ["S1", "S2", "S3"]


def test_msrs_is_measured_where_the_table_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Untrained on random images, untrained on data, trained on data: each is named."""
    table = tmp_path / "table.csv"
    names = [name for k, name in enumerate(TopologySpace()) if k % 5000 == 4999]
    rows = "\n".join(f"{name},0.{7 + k}" for k, name in enumerate(names))
    table.write_text(f"architecture,accuracy\n{rows}\n", encoding="utf-8")
    options = ("search", "--space", "topology-4x1", "--metrics", table, "--cost", "parameters", "--force")
    output = ("--output", tmp_path / "s.sqlite")
    for more, origin in (
        (("--msrs", "untrained"), "untrained on random images"),
        (("--msrs", "untrained", "--data", DIGITS), "untrained"),
        (("--data", DIGITS, "--epochs", 0), "untrained"),
        (("--msrs", "trained", "--data", DIGITS, "--epochs", 1), "trained"),
    ):
        found = document(*options, *output, *more, capsys=capsys)
        assert len(found["ranking"]) == len(names)
        assert {row["msrs_from"] for row in found["ranking"]} == {origin}
        assert sorted(row["accuracy"] for row in found["ranking"]) == [0.7, 0.8, 0.9][: len(names)]
        assert all(row["macs"] is None and row["parameters"] > 0 for row in found["ranking"])
    for more, why in (
        ((), "S3 needs the MSRS of candidates"),
        (("--msrs", "weights"), "--msrs weights needs --benchmark"),
        (("--msrs", "trained"), "--msrs trained needs --data"),
    ):
        assert call(*options, *output, *more) == 2
        assert why in capsys.readouterr().err


@pytest.mark.parametrize("data", BENCHMARK_DATA)
def test_a_partial_benchmark_is_ranked_by_every_score(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nats_bench", reason="needs the package nats_bench")
    if not SAMPLE.is_dir():
        pytest.skip("the benchmark's sample records are not here")
    table = tmp_path / "msrs.csv"
    names = {name: 20.0 + k for k, name in enumerate(NatsBench(SAMPLE).names)}
    assert len(names) == 3
    table.write_text("name,msrs\n" + "".join(f"{n},{m}\n" for n, m in names.items()), encoding="utf-8")
    for by in SCORES:
        options = ("--benchmark", SAMPLE, "--benchmark-data", data, "--metrics", table, "--by", by)
        found = document("search", *options, "--output", tmp_path / f"{by}.sqlite", capsys=capsys)
        assert {row["name"]: row["msrs"] for row in found["ranking"]} == names
        assert found["settings"]["expected"] == 35
        scores = [row["scores"][by] for row in found["ranking"]]
        assert scores == sorted(scores, reverse=True)
        assert [item["score"] for item in found["means"]] == list(SCORES)

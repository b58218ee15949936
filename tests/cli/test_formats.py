"""What goes to stdout in each format: the table alone, whole, and nothing else."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from redtest_onnx.cli.main import run

MODELS = Path(__file__).parents[2] / "models"
VGG, VIT, DATA = (str(MODELS / name) for name in ("vgg_digits.onnx", "vit_digits.onnx", "digits.npz"))
SHORT = ("--data", DATA, "--samples", "16", "--batches", "1")
ROWS = {
    "inspect": (["inspect", VGG], 12),
    "analyze": (["analyze", VGG, *SHORT], 12),
    "compare": (["compare", VGG, VIT, *SHORT], 12),
    "rank": (["rank", VGG, VIT, *SHORT], 2),
    "sparsity": (["sparsity", VGG], 13),
    "prune": (["prune", VGG, *SHORT, "--remove", "1", "--repair", "none"], 12),
    "plan": (["prune", VGG, *SHORT, "--remove", "1", "--dry-run"], 1),
    "folder": (["analyze", str(MODELS), *SHORT], 3),
}


@pytest.mark.parametrize("name", ROWS)
def test_stdout_is_the_table_and_nothing_else(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, count = ROWS[name]
    extra = ["-o", str(tmp_path / "out.onnx")] if name == "prune" else []
    assert run([*arguments, *extra, "--format", "csv"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == count + 1
    assert len({len(row) for row in rows}) == 1
    assert run([*arguments, *extra, "--force", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [list(entry) for entry in found] == [rows[0]] * count


def test_pull_requests_get_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.onnx"
    arguments = ["prune", VGG, *SHORT, "--remove", "2", "--repair", "adapter", "-o", str(out)]
    assert run([*arguments, "--format", "markdown"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("### vgg\\_digits.onnx: 2 of 12 layers removed\n")
    assert "| parameters |" in text
    assert text.count("<details>") == text.count("</details>") == 1
    assert f"Written to `{out}`" in text
    assert run(["compare", VGG, VIT, *SHORT, "--format", "markdown"]) == 0
    text = capsys.readouterr().out
    assert "Most similar layers" in text
    files, layers = text.split("<details>")
    assert "| parameters |" in files
    assert "\nOutputs are compared on " in files
    assert layers.count("\n| ") == 13


def test_ci_gets_annotations_of_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", VGG, VIT, *SHORT, "--format", "github"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("::notice file=vit_digits.onnx,line=1,title=vgg_digits.onnx and vit_digits.onnx::")
    assert run(["compare", VGG, VIT, *SHORT, "--format", "gitlab"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["severity"] == "info"
    assert entry["location"] == {"path": "vit_digits.onnx", "lines": {"begin": 1}}


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_why_nothing_is_removed_is_said_in_every_format(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["prune", VGG, *SHORT, "--threshold", "1", "--dry-run", "--format", form]) == 1
    said = capsys.readouterr()
    assert "Nothing is removed and nothing is written" in (said.err if form in ("csv", "json") else said.out)
    if form in ("csv", "json"):
        assert said.out == ""


def test_plans_and_series_are_tables_in_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = ["prune", VGG, *SHORT, "--remove", "1", "--dry-run", "--format", "markdown"]
    assert run(plan) == 0
    assert capsys.readouterr().out.startswith("| layer |")
    series = ["prune", VGG, *SHORT, "--repair", "none", "--curve", str(tmp_path), "--format", "markdown"]
    assert run(series) == 0
    assert capsys.readouterr().out.startswith("| removed |")

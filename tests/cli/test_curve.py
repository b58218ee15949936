"""`prune --curve`: a series of models with what each saves and costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from many_models import write_models

import redtest_onnx as rt
from redtest_onnx.cli.main import run

MODELS = Path(__file__).parents[2] / "models"
VIT, DATA = MODELS / "vit_digits.onnx", MODELS / "digits.npz"


def test_a_series_is_written_measured_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, page, report = tmp_path / "series", tmp_path / "curve.html", tmp_path / "curve.json"
    options = ["--data", str(DATA), "--samples", "64", "--batches", "1", "--threads", "1", "--repair", "none"]
    outputs = ["--curve", str(folder), "--html", str(page), "--json", str(report), "--max-drop", "0.05"]
    outputs += ["--png", str(tmp_path / "curve.svg")]
    assert run(["prune", str(VIT), *options, *outputs]) == 0
    document = json.loads(report.read_text(encoding="utf-8"))
    points = document["points"]
    assert 2 < len(points) <= 8
    removed = [len(point["plan"]["steps"]) for point in points]
    parameters = [point["after"]["parameters"] for point in points]
    assert removed == sorted(set(removed))
    assert parameters == sorted(parameters, reverse=True)
    for point in points:
        loaded = rt.load(point["output"])
        assert rt.open_workbench(loaded).cost.parameters == point["after"]["parameters"]
    within = [i for i, point in enumerate(points) if point["loss"] is not None and point["loss"] <= 0.05]
    assert document["chosen"] == (max(within) if within else None)
    assert (tmp_path / "curve.svg").stat().st_size > 10_000
    assert "Trade-off between size and quality" in page.read_text(encoding="utf-8")
    shown = capsys.readouterr().out
    assert all(Path(point["output"]).name in shown for point in points)


@pytest.mark.parametrize("options", [["--remove", "2"], ["--target", "params=0.5"], ["--dry-run"]])
def test_it_excludes_what_belongs_to_one_result(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["prune", str(VIT), "--curve", str(tmp_path / "s"), *options]) == 2
    assert options[0] in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_folder_with_files_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    assert run(["prune", str(VIT), "--curve", str(tmp_path)]) == 2
    assert "holds files already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_every_model_of_a_folder_gets_its_series(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_models(tmp_path / "models")
    report, out = tmp_path / "curves.json", tmp_path / "out"
    options = ["--data", str(data), "--samples", "16", "--threads", "1", "--repair", "none", "--workers", "2"]
    assert run(["prune", str(tmp_path / "models"), "--curve", str(out), *options, "--json", str(report)]) == 0
    document = json.loads(report.read_text(encoding="utf-8"))
    assert [Path(item["path"]).name for item in document["failed"]] == ["broken.onnx"]
    written = {Path(point["output"]) for model in document["models"] for point in model["points"]}
    assert written == set(out.rglob("*.onnx"))
    assert {path.parent.name for path in written} == {"out", "below"}
    assert "the file is empty" in capsys.readouterr().out
    alone = tmp_path / "alone"
    assert run(["prune", str(tmp_path / "models" / "a.onnx"), "--curve", str(alone), *options[:-2]]) == 0
    assert {path.name for path in alone.iterdir()} == {p.name for p in written if p.name.startswith("a.")}
    for path in alone.iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes()


def test_models_without_a_choice_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_models(tmp_path / "models")
    out = tmp_path / "out"
    options = [
        "--data",
        str(data),
        "--samples",
        "16",
        "--threads",
        "1",
        "--repair",
        "none",
        "--max-drop",
        "0",
    ]
    assert run(["prune", str(tmp_path / "models"), "--curve", str(out), *options]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    path = tmp_path / "models" / "a.onnx"
    count = len([*out.glob("a.*.onnx")])
    assert (
        f"None of {path} is within 0.0% loss on held-out samples: nothing is chosen of its {count} " in shown
    )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--curve", "OUT", "--html", "page.html"], "are for the series of one model"),
        (["--curve", "OUT", "--side-file"], "this holds one with side files"),
        (["--curve", "OUT", "--analysis", "a.json"], "--analysis can't be given"),
        (["--curve", "models/out"], "lies in the folder of the models"),
        (["--workers", "2", "-o", "o"], "for many models or files"),
    ],
)
def test_what_a_folder_can_not_have_is_refused(
    options: list[str],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_models(tmp_path / "models")
    if "--side-file" in options:
        options = options[:-1]
        (tmp_path / "models" / "config.json").write_text("{}", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    assert run(["prune", "models", *options]) == 2
    assert why in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before

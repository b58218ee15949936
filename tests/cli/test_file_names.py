"""Names of outputs that can't be meant are refused before any work, with the option and what it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from redtest_onnx.cli.main import run

MODEL = str(Path(__file__).parents[2] / "models" / "resnet_digits.onnx")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["prune", MODEL, "-o", "x.pt"],
            "x.pt: --output writes .onnx, not files of .pt\n  try: --output x.onnx",
        ),
        (["prune", MODEL, "-o", "x"], "x: --output writes .onnx, not a name without suffix"),
        (["prune", MODEL, "-o", "new/"], "new: --output writes .onnx"),
        (["prune", MODEL, "-o", "new.onnx/"], "new.onnx/: has the suffix of a file"),
        (["prune", MODEL, "-o", "there"], "there: is a folder"),
        (["prune", MODEL, "-o", "-"], "-: --output can't go to stdout"),
        (["prune", MODEL, "-o", ""], "'--output': the name is empty"),
        (["prune", MODEL, "--curve", "-"], "--curve can't go to stdout"),
        (["prune", MODEL, "--dry-run", "--plan", "-"], "-: --plan can't go to stdout"),
        (["prune", MODEL, "--dry-run", "--plan", "x.onnx"], "--plan writes .json, not files of .onnx"),
        (["finetune", MODEL, "-o", "x.txt"], "--output writes .onnx"),
        (["finetune", MODEL, "--log", "-"], "--log can't go to stdout"),
        (["sparsity", MODEL, "--method", "one-shot", "-o", "x.txt"], "--output writes .onnx"),
        (["expose", MODEL, "-o", "x.txt"], "--output writes .onnx"),
        (["expose", MODEL, "--save", "x.txt"], "--save writes .npz or .parquet"),
        (["analyze", MODEL, "--html", "x.txt"], "x.txt: --html writes .html or .htm, not files of .txt"),
        (["analyze", MODEL, "--html", "x.html/"], "x.html/: --html writes a file, and this names a folder"),
        (["analyze", MODEL, "--html="], "'--html': the name is empty"),
        (["analyze", MODEL, "--json="], "'--json': the name is empty"),
        (
            ["analyze", MODEL, "--json", "x.txt"],
            "--json writes .json, not files of .txt\n  try: --json x.json",
        ),
        (["analyze", MODEL, "--png", "y"], "y: --png writes .png, .svg or .pdf, not a name without suffix"),
        (["analyze", MODEL, "--feature-maps", "y"], "--feature-maps writes .png, .svg or .pdf"),
        (["analyze", MODEL, "--data", ""], "'--data': the name is empty"),
        (["analyze", ""], "the name is empty"),
        (["audit", MODEL, "-o", "rep"], "rep: --output writes .txt, .log, .json, .sarif, .xml, .md or .html"),
        (["audit", MODEL, "-o", "-"], "--output can't go to stdout"),
        (["search", "--output", "x.txt"], "--output writes .sqlite or .db"),
    ],
)
def test_refused_before_any_work(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--force"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert [path.name for path in folder.iterdir()] == ["there"]


@pytest.mark.parametrize("name", ["a.onnx", "A.ONNX", "/dev/null", "sub.d/a.onnx"])
def test_right_names_of_models_pass(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "sub.d").mkdir()
    few = ["--samples", "8", "--batches", "1", "--threads", "1", "--remove", "1", "--repair", "none", "-q"]
    assert run(["prune", MODEL, "-o", name, *few]) == 0
    assert name == "/dev/null" or (folder / name).is_file()


def test_streams_and_upper_case_pass(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", MODEL, "--threads", "1", "--json", "-"]) == 0
    assert '"redtest-onnx/inspect/1"' in capfd.readouterr().out
    assert run(["inspect", MODEL, "--threads", "1", "--json", "A.JSON", "--html", "a.HTM"]) == 0
    assert (folder / "A.JSON").is_file()
    assert (folder / "a.HTM").is_file()


def test_a_folder_of_a_model_gives_a_folder_of_any_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "model.onnx").write_bytes(Path(MODEL).read_bytes())
    few = ["--samples", "8", "--batches", "1", "--threads", "1", "--remove", "1", "--repair", "none", "-q"]
    assert run(["prune", "model", "-o", "smaller/", *few]) == 0
    assert (folder / "smaller" / "model.onnx").is_file()
    assert run(["prune", "model", "-o", "-", *few]) == 2

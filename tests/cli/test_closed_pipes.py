"""A reader that closes the pipe, as `head -1` does, costs no file and changes no exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[2] / "models"
MODEL, DATA = str(MODELS / "resnet_digits.onnx"), str(MODELS / "digits.npz")
FEW = ["--samples", "16", "--batches", "1", "--threads", "1", "--device", "cpu"]
PRUNE = ["prune", MODEL, "--data", DATA, "-o", "y.onnx", "--remove", "1", "--repair", "none", *FEW]
AUDIT = ["audit", MODEL, "--no-latency", "--threads", "1"]
SECONDS = 120


def head(arguments: list[str], folder: Path, *, lines: int, both: bool = False) -> tuple[int, str]:
    """Run a command, read so many lines of its stdout (with `both` stderr, too) and close the pipe.

    Returns:
        The exit code, and what it said on stderr.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "redtest_onnx", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if both else subprocess.PIPE,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(MODELS.parent)},
    ) as process:
        assert process.stdout is not None
        for _ in range(lines):
            assert process.stdout.readline()
        process.stdout.close()
        said = b"" if process.stderr is None else process.stderr.read()
        return process.wait(timeout=SECONDS), said.decode()


@pytest.mark.parametrize("both", [False, True], ids=["stdout", "both"])
@pytest.mark.parametrize("lines", [0, 1])
def test_all_files_are_written(lines: int, both: bool, tmp_path: Path) -> None:
    views = ["--html", "h.html", "--json", "j.json"]
    code, said = head([*PRUNE, *views], tmp_path, lines=lines, both=both)
    assert code == 0, said
    assert "Error" not in said
    assert "Exception" not in said
    assert {path.name for path in tmp_path.iterdir()} == {"y.onnx", "h.html", "j.json"}


@pytest.mark.parametrize(
    "stream",
    ["-", pytest.param("/dev/stdout", marks=pytest.mark.skipif(os.name != "posix", reason="no such file"))],
)
def test_a_document_on_stdout_may_be_cut(stream: str, tmp_path: Path) -> None:
    code, said = head([*PRUNE, "--json", stream, "--html", "h.html"], tmp_path, lines=0)
    assert code == 0, said
    assert {path.name for path in tmp_path.iterdir()} == {"y.onnx", "h.html"}


@pytest.mark.parametrize(("options", "code"), [([], 0), (["--fail-on", "note"], 1)], ids=["passed", "failed"])
@pytest.mark.parametrize("form", ["text", "json"])
def test_the_exit_code_is_that_of_the_verdict(
    options: list[str], code: int, form: str, tmp_path: Path
) -> None:
    for lines in (0, 1):
        found, said = head([*AUDIT, *options, "--format", form], tmp_path, lines=lines)
        assert found == code, said


def test_help_and_versions_may_be_cut(tmp_path: Path) -> None:
    for arguments in (["prune", "--help-all"], ["--version"], ["completion", "bash"]):
        assert head(arguments, tmp_path, lines=0) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such file")
@pytest.mark.parametrize(
    "arguments", [["inspect", MODEL], ["inspect", MODEL, "--json", "-"], ["prune", "--help-all"]]
)
def test_results_that_find_no_room_are_told_once(arguments: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "redtest_onnx", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(MODELS.parent)},
            timeout=SECONDS,
            check=False,
        )
    said = done.stderr.decode()
    assert done.returncode == 2, said
    assert said.startswith("error: stdout: the disk is full")
    assert said.count("the disk is full") == 1
    assert "Exception" not in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such file")
def test_remarks_that_find_no_room_are_left_out(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "redtest_onnx", *PRUNE, "-v"],
            stdout=subprocess.PIPE,
            stderr=full,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(MODELS.parent)},
            timeout=SECONDS,
            check=False,
        )
    assert done.returncode == 0
    assert (tmp_path / "y.onnx").exists()

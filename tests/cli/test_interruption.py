"""Ctrl-C and kill: no half-written file, no temporary litter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

import redtest_onnx as rt
from redtest_onnx.graph.writing import write_together

MODELS = Path(__file__).parents[2] / "models"
SECONDS = 120

# Says when the work has begun, then makes it endless: what is measured is what an interruption leaves.
ENDLESS = """
import sys, time
import redtest_onnx.{module} as module
from redtest_onnx.cli.main import main

whole = module.{function}

def endless(*arguments, **options):
    result = whole(*arguments, **options) if {after} else None
    print("begun", file=sys.stderr, flush=True)
    while True:
        time.sleep(0.01)

module.{function} = endless
main({arguments!r})
"""


def interrupt(code: str, number: signal.Signals, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program with its temporary files in `folder`, and send it a signal once it has begun."""
    program = [sys.executable, "-c", code]
    process = subprocess.Popen(
        program,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "begun" in line:
            break
    else:
        pytest.fail("".join(lines))
    process.send_signal(number)
    output, errors = process.communicate(timeout=SECONDS)
    return subprocess.CompletedProcess(program, process.returncode, output, "".join(lines) + errors)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "kill"])
@pytest.mark.parametrize(
    ("module", "function", "after", "command"),
    [
        ("similarity.probe_session", "complete", True, "analyze"),
        ("similarity.measure", "full_hsic", False, "analyze"),
        ("graph.files", "copy_external", True, "prune"),
    ],
    ids=["rewriting", "measuring", "saving"],
)
def test_nothing_is_left_behind(
    number: signal.Signals, module: str, function: str, after: bool, command: str, tmp_path: Path
) -> None:
    temporary, work = tmp_path / "temporary", tmp_path / "work"
    temporary.mkdir()
    work.mkdir()
    model = work / "model.onnx"
    _with_external_data(model)
    before = {path: path.read_bytes() for path in work.iterdir()}
    common = [command, str(model), "--samples", "16", "--batches", "2"]
    output = {
        "analyze": ["--json", str(work / "out.json"), "--estimator", "exact"],
        "prune": ["-o", str(work / "out.onnx"), "--remove", "1", "--repair", "none"],
    }[command]
    code = ENDLESS.format(module=module, function=function, after=after, arguments=[*common, *output])
    result = interrupt(code, number, temporary)
    assert result.returncode == 130, result.stderr
    assert "interrupted" in result.stderr
    assert {path: path.read_bytes() for path in work.iterdir()} == before
    assert list(temporary.glob("redtest*")) == []  # what ONNX Runtime itself leaves is not ours


def test_files_that_belong_together_are_all_there_or_none(tmp_path: Path) -> None:
    def fails(_: Path) -> None:
        raise KeyboardInterrupt

    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_together({one: lambda target: target.write_text("new"), two: fails})
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert one.read_text() == "old"


def _with_external_data(path: Path) -> None:
    proto = onnx.load(MODELS / "resnet_digits.onnx")
    onnx.save(proto, path, save_as_external_data=True, location="model.data", size_threshold=256)
    assert rt.load(path).external_files

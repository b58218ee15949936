"""Ctrl-C and kill: no half-written file, no temporary litter."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

import redtest_onnx as rt
from redtest_onnx.cli.main import run
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


# A job in the background of a shell is born with Ctrl-C ignored, and hands that on to its children.
AS_ON_A_TERMINAL = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"


def interrupt(code: str, number: signal.Signals, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program with its temporary files in `folder`, and send it a signal once it has begun."""
    program = [sys.executable, "-c", AS_ON_A_TERMINAL + code]
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


# A model that runs for minutes within one call: Python sees no signal meanwhile.
LONG = """
import sys
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
import redtest_onnx.cli.main as main
from redtest_onnx.graph.model import Model
from redtest_onnx.runtime.session import RunOptions, Session

body = [helper.make_node("MatMul", ["x"] * 2, ["t0"])]
body += [helper.make_node("MatMul", [f"t{k}", "x"], [f"t{k + 1}"]) for k in range(4000)]
sizes = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1500, 1500])]
ends = [helper.make_tensor_value_info("t4000", TensorProto.FLOAT, None)]
graph = helper.make_graph(body, "long", sizes, ends)
model = Model(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))
session = Session(model, RunOptions("cpu", 1))

def command(*_, **__):
    print("begun", file=sys.stderr, flush=True)
    session.run({"x": np.zeros((1500, 1500), np.float32)})
    return 0

main.cli.main = command
main.main([])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_within_one_call_is_stopped(number: signal.Signals, tmp_path: Path) -> None:
    result = interrupt(LONG, number, tmp_path)
    assert result.returncode == 130
    assert "interrupted" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_an_interrupted_search_keeps_the_analysis_and_goes_on_from_it(tmp_path: Path) -> None:
    output = tmp_path / "pruned.onnx"
    common = [str(MODELS / "vgg_digits.onnx"), "--data", str(MODELS / "digits.npz"), "-o", str(output)]
    arguments = ["prune", *common, "--device", "cpu", "--samples", "32", "--batches", "1", "--remove", "1"]
    code = ENDLESS.format(module="pruning.prune", function="planner", after=False, arguments=arguments)
    result = interrupt(code, signal.SIGINT, tmp_path)
    assert result.returncode == 130
    kept = tmp_path / "pruned.onnx.analysis.json"
    assert f"--analysis {kept}" in result.stderr.replace("\n", " ")
    assert run([*arguments, "--analysis", str(kept), "--repair", "none", "-q"]) == 0
    assert output.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("epochs", [0, 1])
def test_an_interrupted_training_says_how_it_goes_on(epochs: int, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    output = tmp_path / "tuned.onnx"
    common = [str(MODELS / "vgg_digits.onnx"), "--data", str(MODELS / "digits.npz"), "-o", str(output)]
    arguments = ["finetune", *common, "--device", "cpu", "--epochs", "2", "--threads", "1"]
    code = TRAINING.format(arguments=arguments, epochs=epochs)
    result = interrupt(code, signal.SIGINT, tmp_path)
    assert result.returncode == 130, result.stderr
    kept = tmp_path / "tuned.checkpoint"
    assert kept.exists() is (epochs > 0)
    said = "There is nothing to resume"
    if epochs:
        said = f"The state is kept in {kept}; the same command with --resume continues from it."
        assert run([*arguments, "--resume", "-q"]) == 0
        assert output.exists()
    assert said in result.stderr


# Says after so many epochs that the work has begun, then makes it endless.
TRAINING = """
import sys, time
import redtest_onnx.cli.finetune as command
from redtest_onnx.cli.main import main
import redtest_onnx.training.loop as loop

whole, seen = loop.Trainer._train_epoch, []

def epoch(trainer, *arguments):
    if len(seen) == {epochs}:
        print("begun", file=sys.stderr, flush=True)
        while True:
            time.sleep(0.01)
    seen.append(trainer)
    return whole(trainer, *arguments)

loop.Trainer._train_epoch = epoch
main({arguments!r})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_an_interrupted_search_says_how_it_goes_on(tmp_path: Path) -> None:
    """What lies elsewhere has to be named again, see `check_places`."""
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    elsewhere.mkdir()
    here.mkdir()
    table = elsewhere / "t.csv"
    table.write_text("\n".join(["architecture,accuracy,macs", *(f"a{k},0.{k},1{k}" for k in range(1, 9))]))
    store = here / "s.db"
    arguments = ["search", "--metrics", str(table), "--by", "S2", "--strategy", "random"]
    code = ENDLESS.format(
        module="cli.search",
        function="note_candidate",
        after=False,
        arguments=[*arguments, "--output", str(store)],
    )
    result = interrupt(code, signal.SIGINT, tmp_path)
    assert result.returncode == 130, result.stderr
    told = next(line for line in result.stderr.splitlines() if "to continue from there: " in line)
    assert told.startswith(f"{store} holds the results of 1 architecture;")
    program, *command = shlex.split(told.partition("to continue from there: ")[2])
    assert program == "redtest-onnx"
    assert command == ["search", "--resume", str(store), "--metrics", str(table)]
    assert run([*command, "-q"]) == 0

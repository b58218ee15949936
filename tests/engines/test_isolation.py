"""In a folder full of modules that somebody else wrote, none is run: by no process that a command starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from redtest_onnx.engines.isolation import isolated_command
from redtest_onnx.runtime.feeds_file import write_feeds

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "vgg_digits.onnx"
RANK = ["rank", str(MODEL), str(MODEL.with_name("resnet_digits.onnx")), "--metrics", "accuracy.csv"]
RANK += ["--samples", "8", "--batches", "1"]
HOSTILE = (
    *(
        "numpy",
        "onnx",
        "onnxruntime",
        "torch",
        "rich",
        "click",
        "json",
        "pathlib",
        "runpy",
        "pickle",
        "resource",
    ),
    *(
        "sitecustomize",
        "usercustomize",
        "redtest_onnx",
        "typing",
        "random",
        "matplotlib",
        "sqlite3",
        "pydantic",
    ),
)
# As the installed script, whose own folder comes first on the path.
SCRIPT = "from redtest_onnx.cli.main import main\n\nif __name__ == '__main__':\n    main()\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder whose every module leaves a trace when it is run."""
    trace = tmp_path / "trace"
    hostile = tmp_path / "hostile"
    (hostile / "multiprocessing").mkdir(parents=True)
    line = f"open({str(trace)!r}, 'a').write(__name__ + '\\n')\n"
    for name in HOSTILE:
        (hostile / f"{name}.py").write_text(line)
    for name in ("__init__", "spawn", "resource_tracker"):
        (hostile / "multiprocessing" / f"{name}.py").write_text(line)
    (hostile / "accuracy.csv").write_text("name,accuracy\nvgg_digits,0.9\nresnet_digits,0.8\n")
    return hostile


def redtest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, started in the hostile folder as its script would be."""
    script = folder.parent / "bin" / "redtest-onnx"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    program = [sys.executable, str(script), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONSAFEPATH", None)
    result = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    trace = folder.parent / "trace"
    assert not trace.exists(), f"{trace.read_text()} was run\n{result.stderr}"
    return result


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", str(MODEL), "--isolate"],
        ["audit", str(MODEL)],
        ["sparsity", str(MODEL)],
        ["analyze", str(MODEL), "--samples", "8", "--batches", "1", "--html", "page.html"],
        [*RANK, "--workers", "2"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_module_of_the_working_folder_runs(arguments: list[str], folder: Path) -> None:
    result = redtest(folder, *arguments)
    assert result.returncode in (0, 1), result.stderr


def test_neither_do_those_of_ray(folder: Path) -> None:
    pytest.importorskip("ray")
    result = redtest(folder, *RANK, "--engine", "ray")
    assert result.returncode == 0, result.stderr


def test_the_trace_tells(folder: Path) -> None:
    """What is tested here would be seen: without isolation the folder's numpy.py is what is imported."""
    # Whatever ran before in this process may have turned isolation on.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = [sys.executable, "-c", "import numpy"]
    subprocess.run(command, cwd=folder, capture_output=True, check=False, env=env)
    assert (folder.parent / "trace").exists()


def test_isolated_processes_find_what_this_one_finds(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('hostile')")
    write_feeds(tmp_path / "in.npz", {"input": np.zeros((1, 1, 8, 8), np.float32)})
    command = isolated_command("redtest_onnx.runtime.watched_run", str(MODEL), str(tmp_path / "in.npz"))
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if sys.platform.startswith("linux"):
        assert result.returncode == 0, result.stderr
        assert int(result.stdout) >= 0

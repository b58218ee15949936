"""The GitHub action's script, run as GitHub runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "models"
OUTPUTS = ("txt", "sarif", "xml", "md", "html")

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or os.name != "posix", reason="the action runs in bash"
)


def run_action(folder: Path, tool: str = "", **inputs: str) -> subprocess.CompletedProcess[str]:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    script = textwrap.dedent(text.rsplit("run: |\n", 1)[1])
    command = folder / "bin" / "redtest-onnx"
    command.parent.mkdir()
    own = f'exec "{sys.executable}" -m redtest_onnx "$@"'
    command.write_text(f"#!/bin/sh\n{tool or own}\n")
    command.chmod(0o755)
    given = {
        "PROFILE": "onnxruntime-cpu",
        "DATA": "",
        "BASELINE": "",
        "FAIL_ON": "error",
        "OUTPUT": "out/audit",
    }
    environment = os.environ | given | inputs
    environment |= {
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_it_annotates_summarises_and_leaves_reports(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in ("vgg", "vit"):
        shutil.copy(MODELS / f"{name}_digits.onnx", tmp_path / f"{name}.onnx")
    result = run_action(tmp_path, MODELS="*.onnx", PROFILE="nnapi")
    assert result.returncode == 1, result.stderr
    assert "::error file=vit.onnx,line=1,title=RT021 fallback::" in result.stdout
    assert all((tmp_path / "out" / f"audit.{suffix}").stat().st_size for suffix in OUTPUTS)
    assert "### vit.onnx" in (tmp_path / "summary.md").read_text().replace("\\", "")


def test_values_are_no_code(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    shutil.copy(MODELS / "vgg_digits.onnx", tmp_path / "vgg.onnx")
    result = run_action(tmp_path, MODELS="vgg.onnx", PROFILE="x; touch stolen; $(touch stolen)")
    assert result.returncode == 2
    assert not (tmp_path / "stolen").exists()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "my models").mkdir()
    for name in ("a", "b", "c", "d[1]", "my models/e", "my models/f"):
        shutil.copy(MODELS / "vgg_digits.onnx", tmp_path / f"{name}.onnx")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "audited"),
    [
        ("a.onnx b.onnx", ["a", "b"]),
        ("a.onnx\n[bc].onnx\n", ["a", "b", "c"]),
        ("  a.onnx   b.onnx  \r\n\n\tc.onnx", ["a", "b", "c"]),
        ("my models/*.onnx", ["my models/e", "my models/f"]),
        ("my models/f.onnx\na.onnx b.onnx", ["my models/f", "a", "b"]),
        ("d[1].onnx", ["d[1]"]),
    ],
)
def test_all_lines_and_words_name_models(given: str, audited: list[str], models: Path) -> None:
    result = run_action(models, tool='printf "%s\\n" "$@" > given.txt', MODELS=given)
    assert result.returncode == 0, result.stderr
    words = (models / "given.txt").read_text().splitlines()
    assert words[words.index("--") + 1 :] == [f"{name}.onnx" for name in audited]


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("*.onnx lost.onnx", ["lost.onnx"]),
        ("a.onnx\nother/*.onnx\nb.onnx 100%.onnx", ["other/*.onnx", "100%25.onnx"]),
        ("nothing?.onnx", ["nothing?.onnx"]),
    ],
)
def test_patterns_that_match_nothing_fail_by_name(given: str, missing: list[str], models: Path) -> None:
    result = run_action(models, MODELS=given)
    assert result.returncode == 2
    errors = [line for line in result.stdout.splitlines() if line.startswith("::error")]
    assert errors == [f"::error title=redtest-onnx::'{name}' in `models` matches no file" for name in missing]
    assert not (models / "summary.md").exists()  # nothing was audited


@pytest.mark.parametrize("given", ["", "\n  \n"])
def test_no_models_fail(given: str, models: Path) -> None:
    assert run_action(models, MODELS=given).returncode == 2

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


def run_action(folder: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    script = textwrap.dedent(text.rsplit("run: |\n", 1)[1])
    tool = folder / "bin" / "redtest-onnx"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m redtest_onnx "$@"\n')
    tool.chmod(0o755)
    given = {
        "PROFILE": "onnxruntime-cpu",
        "DATA": "",
        "BASELINE": "",
        "FAIL_ON": "error",
        "OUTPUT": "out/audit",
    }
    environment = os.environ | given | inputs
    environment |= {
        "PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}",
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


def test_models_that_are_not_there_fail(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert run_action(tmp_path, MODELS="*.onnx").returncode == 2

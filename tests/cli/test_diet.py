"""The CPU installation measures, prunes and audits without what draws or reads pictures."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODEL, DATA = ROOT / "models" / "resnet_digits.onnx", ROOT / "models" / "digits.npz"


def without(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line where neither matplotlib nor Pillow can be found."""
    code = (
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('matplotlib', 'PIL'):\n"
        "            raise ModuleNotFoundError(name=name.partition('.')[0])\n"
        "sys.meta_path.insert(0, Hide())\n"
        "from importlib import util\nreal = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name in ('matplotlib', 'PIL') else real(name, *rest)\n"
        "from redtest_onnx.cli.main import main\nmain(sys.argv[1:])"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_neither_is_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = " ".join(project["dependencies"])
    assert "matplotlib" not in names
    assert "pillow" not in names
    for extra in ("cpu", "gpu", "gpu-cuda12", "report", "images", "data", "sound"):
        assert project["optional-dependencies"][extra]


@pytest.mark.parametrize("command", ["analyze", "prune", "audit"])
def test_commands_run_without_them(command: str, tmp_path: Path) -> None:
    few: tuple[object, ...] = ("--data", DATA)
    if command != "audit":
        few += ("--samples", 16)
    if command == "prune":
        few += ("--remove", 1, "--repair", "none", "-o", tmp_path / "small.onnx")
    result = without(command, MODEL, *few)
    assert result.returncode in (0, 1) if command == "audit" else result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr


def test_a_page_needs_neither(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = without("analyze", MODEL, "--data", DATA, "--samples", 16, "--html", page)
    assert result.returncode == 0, result.stderr
    assert "data:image/png;base64," in page.read_text(encoding="utf-8")


def test_a_picture_says_what_it_needs_before_any_work(tmp_path: Path) -> None:
    result = without("analyze", MODEL, "--png", tmp_path / "matrix.png")
    assert result.returncode == 2
    assert "pictures need matplotlib and Pillow" in result.stderr
    assert "redtest-onnx[report]" in result.stderr


def test_images_say_what_they_need(tmp_path: Path) -> None:
    for k in range(8):
        (tmp_path / f"{k}.png").write_bytes(b"")
    result = without("analyze", MODEL, "--data", tmp_path)
    assert result.returncode == 2
    assert "redtest-onnx[images]" in result.stderr

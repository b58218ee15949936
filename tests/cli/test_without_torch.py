"""Commands that train say what is missing where PyTorch is not installed; the others work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[2] / "models"
WITHOUT = (
    "import sys; sys.modules['torch'] = None; from redtest_onnx.cli.main import main; main(sys.argv[1:])"
)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    "arguments",
    [["finetune"], ["prune", "--remove", "1", "--finetune", "1"], ["sparsity", "--method", "sap"]],
    ids=lambda arguments: arguments[0],
)
def test_training_names_what_to_install(arguments: list[str], tmp_path: Path) -> None:
    model, data, output = MODELS / "vgg_digits.onnx", MODELS / "digits.npz", tmp_path / "o.onnx"
    done = run(arguments[0], model, "--data", data, "-o", output, *arguments[1:])
    assert done.returncode == 2, done.stderr
    assert "PyTorch is not installed" in done.stderr
    assert "redtest-onnx[torch]" in done.stderr
    assert not output.exists()


def test_measuring_needs_no_torch() -> None:
    assert run("sparsity", MODELS / "vgg_digits.onnx").returncode == 0
    assert run("inspect", MODELS / "vgg_digits.onnx").returncode == 0

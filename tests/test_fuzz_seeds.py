"""Inputs that tools/fuzz.py once found to break something."""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest

from redtest_onnx.cli.main import run

TOOL = Path(__file__).parents[1] / "tools" / "fuzz.py"
# (seed, number): bytes that are no UTF-8 in names of nodes, in a dimension and in the producer's version.
NUMBERS = (818, 998, 1325, 1523, 9006, 9069, 12644, 13690, 15084, 17108, 19408, 19410)
BROKE = [(4, number) for number in NUMBERS]


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = util.spec_from_file_location("fuzz", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(sys.platform == "win32", reason="the tool measures memory with the resource module")
@pytest.mark.parametrize(("seed", "number"), BROKE)
def test_exit_code_two(
    fuzz: ModuleType, seed: int, number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(fuzz.make(number, seed))
    assert run(["prune", str(path), "--samples", "8", "--batches", "1", "--remove", "1"]) == 2
    assert "not UTF-8" in capsys.readouterr().err

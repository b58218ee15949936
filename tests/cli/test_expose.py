"""`expose` as a person uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from redtest_onnx.cli.main import run

MODEL = str(Path(__file__).parents[2] / "models" / "resnet_digits.onnx")


def test_a_number_of_samples_needs_a_file_for_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "o.onnx"
    assert run(["expose", MODEL, "-o", str(output), "--samples", "3"]) == 2
    assert "--samples counts those whose values are written" in capsys.readouterr().err
    assert not output.exists()

"""Options that mean the same in every command."""

from __future__ import annotations

from redtest_onnx.cli.audit import command as audit_command
from redtest_onnx.cli.options import data_arguments


def test_options_about_samples_are_repeated_as_they_were_typed() -> None:
    typed = ["my model.onnx", "--data", "a b.zip", "--mean=0.4,0.5", "--std", "1", "--pad", "--no-latency"]
    context = audit_command.make_context("audit", [*typed, "--fail-on", "note", "--input-shape", "x:1,3"])
    assert data_arguments(context) == (
        *("--data", "a b.zip", "--mean=0.4,0.5", "--std", "1", "--pad", "--input-shape", "x:1,3"),
    )

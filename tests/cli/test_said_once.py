"""A message that holds for several models is said for the first."""

from __future__ import annotations

import logging

import pytest

from redtest_onnx.cli.options import configure_logging


def test_a_warning_is_said_once_per_command(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("redtest_onnx.said")
    for _ in range(2):
        configure_logging(0, False)
        log.warning("%s: resized to cover %d", "im.zip", 8)
        log.warning("%s: resized to cover %d", "im.zip", 8)
        log.warning("%s: resized to cover %d", "other.zip", 8)
        lines = capsys.readouterr().err.splitlines()
        assert lines == [f"WARNING: {name}.zip: resized to cover 8" for name in ("im", "other")]

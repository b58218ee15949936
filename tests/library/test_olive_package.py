"""What is said where Olive is missing or its package configuration can't be written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from redtest_onnx.library.olive_package import main


def test_without_olive_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "olive", None)
    monkeypatch.delitem(sys.modules, "olive.package_config", raising=False)
    assert main([str(tmp_path / "p.json")]) == 2
    assert "Olive is not installed\n  try: pip install olive-ai" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main([]) == 2
    assert "usage:" in capsys.readouterr().err

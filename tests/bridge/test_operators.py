"""A part of the ONNX project's node tests; tools/bridge_operators.py runs them all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from bridge_operators import DOCUMENT, node_tests, outcome


def test_node_tests_pass() -> None:
    found = [outcome(case) for case in node_tests(every=6)]
    floats = [item for item in found if item.floats]
    assert len(floats) > 80
    assert sum(item.failure is None for item in floats) >= 0.97 * len(floats)


def test_the_page_lists_what_fails() -> None:
    assert "ai_onnx_ml_tree_ensemble_single_tree" in DOCUMENT.read_text(encoding="utf-8")

from __future__ import annotations

from frozen import changeable


def test_what_is_handed_on_is_frozen() -> None:
    assert changeable("redtest_onnx.metrics") == set()

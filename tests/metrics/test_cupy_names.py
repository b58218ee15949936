"""Every name that is looked up in "NumPy or CuPy" exists in the lowest CuPy that is declared."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import strict_cupy

PACKAGE = Path(__file__).parents[2] / "redtest_onnx"
LINES = (Path(__file__).parents[1] / "fixtures" / "cupy-13.6-names.txt").read_text().splitlines()
CUPY = {line for line in LINES if not line.startswith("#")}


def used(source: str) -> Iterator[str]:
    """Names taken from `xp`, `cupy`, or `namespace(...)`."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        value = node.value
        by_name = isinstance(value, ast.Name) and value.id in ("xp", "cupy")
        by_call = (
            isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "namespace"
        )
        if by_name or by_call:
            yield node.attr


def test_names_exist_in_the_lowest_cupy() -> None:
    found = {name for file in PACKAGE.rglob("*.py") for name in used(file.read_text(encoding="utf-8"))}
    assert {"einsum", "asnumpy", "from_dlpack", "expm1"} <= found  # the search sees all three forms
    assert found <= CUPY, f"not in CuPy 13.6: {sorted(found - CUPY)}"


def test_a_name_that_cupy_lacks_would_be_found() -> None:
    assert set(used("xp.einsum(a)\nnamespace(a).block(a, b)")) - CUPY == {"block"}


def test_the_stand_in_has_no_name_that_cupy_lacks() -> None:
    names = {name for name in vars(strict_cupy.module()) if not name.startswith("_")} - {"counts"}
    assert names <= CUPY, sorted(names - CUPY)

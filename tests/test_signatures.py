"""What functions take: a workbench instead of its parts, and few parameters."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "redtest_onnx"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST = 7
# Kernels take what ONNX defines for their operator.
KERNELS = PACKAGE / "bridge" / "ops"
LONGEST_COMMAND = 60  # lines of a command's body: it parses, calls one public function and renders
# What a workbench owns, and what follows from that.
OWNED = {"Model", "Dataset", "RunOptions"}
DERIVED = {"GraphIndex", "Shapes", "ResolvedShapes", "Layer"}
# Below the workbench, or its own making.
BELOW = {"checks", "data", "documents", "engines", "errors", "graph", "layers", "metrics"}
MAKES = {PACKAGE / "runtime" / f"{name}.py" for name in ("workbench", "shapes", "inputs")}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(file: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield node


def parameters(function: Function) -> list[ast.arg]:
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    every += [arg for arg in (given.vararg, given.kwarg) if arg is not None]
    return [arg for arg in every if arg.arg not in ("self", "cls")]


def types(function: Function) -> set[str]:
    found = [arg.annotation for arg in parameters(function) if arg.annotation is not None]
    names = (node for hint in found for node in ast.walk(hint))
    return {node.id for node in names if isinstance(node, ast.Name)}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_parameter_lists_are_short(file: Path) -> None:
    if file.parent == KERNELS:
        return
    assert not {f.name for f in functions(file) if len(parameters(f)) > MOST}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_stages_take_a_workbench_and_not_its_parts(file: Path) -> None:
    room = file.relative_to(PACKAGE).parts[0]
    if room in BELOW or file in MAKES:
        return
    for function in functions(file):
        taken = types(function)
        assert not taken >= OWNED, f"{function.name} takes {', '.join(sorted(OWNED))}"
        both = {"Model", "Dataset"} <= taken and room not in ("cli", "library")
        assert not both, f"{function.name} takes a model and its data"
        assert not ("Model" in taken and taken & {"GraphIndex", "Shapes", "ResolvedShapes"}), function.name
        assert not ("Workbench" in taken and taken & (DERIVED - {"Layer"})), function.name


@pytest.mark.parametrize("file", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda f: f.stem)
def test_bodies_of_commands_are_short(file: Path) -> None:
    for function in functions(file):
        if function.name == "command":
            body = function.body[1 if ast.get_docstring(function) else 0 :]
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1
            assert lines <= LONGEST_COMMAND, f"{lines} lines"

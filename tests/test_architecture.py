"""Imports run one way, and heavy packages are loaded only where they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "redtest_onnx"

# The rooms from the ground up; a room may import from the lines below its own, itself and errors.
STOREYS: tuple[tuple[str, ...], ...] = (
    ("graph", "metrics", "engines", "tracking"),
    ("data", "layers"),
    ("documents",),
    ("runtime",),
    ("bridge", "similarity"),
    ("training", "auditing", "ranking"),
    ("pruning", "search"),
    ("weight_sparsity",),
    ("library",),
    ("report",),
    ("cli",),
)
BASE = ("errors", "checks", "text", "arrays")  # under all rooms
ALLOWED: dict[str, set[str]] = {name: set() for name in BASE}
for _storey in STOREYS:
    _below = set(ALLOWED)
    ALLOWED.update(dict.fromkeys(_storey, _below))
ONLY_INSIDE_FUNCTIONS = {
    *("onnxruntime", "torch", "cupy", "matplotlib", "jinja2", "PIL"),
    *("nats_bench", "optuna", "ray", "mlflow", "tensorboard"),
}
NETWORKS = PACKAGE / "search" / "networks"
LONGEST_FILE = 350  # lines: more hold two concepts
FILES = sorted(PACKAGE.rglob("*.py"))


def part(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path, *, module_level: bool = False) -> Iterator[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body if module_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_run_one_way(file: Path) -> None:
    own = part(file)
    if own in ("__init__", "__main__", "public"):
        return
    for name in imports(file):
        pieces = name.split(".")
        if pieces[0] == "redtest_onnx" and len(pieces) > 1 and pieces[1] not in (own, *BASE):
            assert pieces[1] in ALLOWED[own], f"{own} imports {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_where_used(file: Path) -> None:
    may_torch = part(file) in ("bridge", "training") or file.parent == NETWORKS
    heavy = ONLY_INSIDE_FUNCTIONS - ({"torch"} if may_torch else set())
    assert not {name.split(".")[0] for name in imports(file, module_level=True)} & heavy


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_files_are_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


def test_every_class_name_has_one_meaning() -> None:
    homes: dict[str, list[str]] = {}
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(str(file.relative_to(PACKAGE)))
    assert not {name: files for name, files in homes.items() if len(files) > 1}


def test_every_name_of_an_array_type_has_one_home() -> None:
    """`arrays.py` as a rule: `Floats` meant three types, and `Float64s` stood in a dozen modules."""
    homes: dict[str, list[str]] = {}
    for file in FILES:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.AnnAssign | ast.Assign) or node.value is None:
                continue
            if "npt.NDArray[" in ast.unparse(node.value):
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                homes.setdefault(ast.unparse(target), []).append(str(file.relative_to(PACKAGE)))
    assert homes["Float64s"] == ["arrays.py"]
    assert not {name: files for name, files in homes.items() if len(files) > 1}


def test_only_runtime_runs_models() -> None:
    users = {part(file) for file in FILES if any(n.split(".")[0] == "onnxruntime" for n in imports(file))}
    assert users == {"runtime"}


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys\nfrom redtest_onnx.cli.main import run\nrun(['--help'])\n"
        "print(*{m.split('.')[0] for m in sys.modules} & {'onnx', 'onnxruntime', 'torch', 'matplotlib'})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "analyze" in result.stdout
    assert result.stdout.splitlines()[-1] == ""


def test_every_public_name_is_there() -> None:
    import redtest_onnx

    needs_torch = ("redtest_onnx.bridge", "redtest_onnx.training")
    for name in redtest_onnx.__all__:
        if find_spec("torch") or not redtest_onnx._HOMES.get(name, "").startswith(needs_torch):
            assert getattr(redtest_onnx, name)
    assert set(redtest_onnx.__all__) <= set(dir(redtest_onnx))
    with pytest.raises(AttributeError):
        _ = redtest_onnx.nothing  # type: ignore[attr-defined]

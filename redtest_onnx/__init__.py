"""Measure how redundant a trained network is and remove whole layers from its ONNX file.

import redtest_onnx as rt

pruning = rt.prune("model.onnx", "images.zip", remove=4)
rt.save(pruning.model, "pruned.onnx")
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redtest_onnx.public import *  # noqa: F403

    __version__: str

_LIST = ast.parse(Path(__file__).with_name("public.py").read_text(encoding="utf-8"))
_HOMES = {
    name.name: node.module or ""
    for node in _LIST.body
    if isinstance(node, ast.ImportFrom)
    for name in node.names
}

__all__ = sorted((*_HOMES, "__version__"))


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the command line must answer before onnx is loaded."""
    if name == "__version__":
        from importlib.metadata import version  # takes longer than all else here

        return version("redtest-onnx")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """All public names, whether they were used already or not."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})

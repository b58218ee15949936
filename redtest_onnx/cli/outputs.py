"""Outputs are checked before any work is done for them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from redtest_onnx.errors import RuntimeUnavailableError
from redtest_onnx.graph.files import writable

_DRAWN = frozenset({".html", ".png", ".svg", ".pdf"})
_DRAWING = {"matplotlib": "matplotlib", "PIL": "Pillow"}


def check_outputs(paths: Iterable[str | Path | None], *, force: bool) -> None:
    """Refuse outputs that exist or can't be written; None and "-" are no files.

    Raises:
        OutputError: naming the file.
        RuntimeUnavailableError: a page or picture was asked for, and what draws it is not installed.
    """
    for path in paths:
        if path is not None and path != "-":
            writable(Path(path), force=force)
            if Path(path).suffix.lower() in _DRAWN:
                _require_drawing(str(path))


def _require_drawing(path: str) -> None:
    missing = [name for module, name in _DRAWING.items() if find_spec(module) is None]
    if missing:
        raise RuntimeUnavailableError(
            f"pages and pictures need {' and '.join(missing)}",
            where=path,
            hint='pip install "redtest-onnx[report]", or leave the page or picture out',
        )

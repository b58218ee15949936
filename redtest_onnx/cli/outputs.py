"""Outputs are checked before any work is done for them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from redtest_onnx.graph.files import writable


def check_outputs(paths: Iterable[str | Path | None], *, force: bool) -> None:
    """Refuse outputs that exist or can't be written; None and "-" are no files.

    Raises:
        OutputError: naming the file.
    """
    for path in paths:
        if path is not None and path != "-":
            writable(Path(path), force=force)

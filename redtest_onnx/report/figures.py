"""Figures as files and as text for pages."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from redtest_onnx.graph.writing import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the suffix of `path` tells the format (.png, .svg, .pdf)."""
    suffix = path.suffix.lstrip(".") or "png"
    write_atomic(path, lambda target: figure.savefig(target, format=suffix, dpi=160))


def figure_svg(figure: Figure) -> str:
    """A figure as SVG text without XML header, for pages."""
    import matplotlib as mpl

    buffer = io.StringIO()
    # Ids from a fixed salt: the same figure gives the same bytes.
    with mpl.rc_context({"svg.hashsalt": "redtest-onnx", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]

"""Figures as files, and the labels in them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redtest_onnx.errors import OutputError
from redtest_onnx.graph.writing import write_atomic
from redtest_onnx.text import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE_SUFFIXES = (".png", ".svg", ".pdf")
_MOST_LABELS = 40
_LONGEST_LABEL = 48
_TITLE_WIDTH = 78
_DPI = 160
_POINT = 3.6  # half the side of the square that a point keeps free, in points (1/72 inch)


def check_figure(path: Path | None) -> None:
    """Refuse a picture whose suffix names no format we write, before any work is done for it.

    Raises:
        OutputError: naming the file and the formats.
    """
    if path is not None and path.suffix.lower() not in FIGURE_SUFFIXES:
        raise OutputError(
            f"{path.suffix or 'no suffix'} is not a format of pictures",
            where=str(path),
            hint=f"name the file with one of {', '.join(FIGURE_SUFFIXES)}",
        )


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the suffix of `path` tells the format (.png, .svg, .pdf).

    Raises:
        OutputError: the suffix names no format, or the file can't be written.
    """
    import matplotlib as mpl

    check_figure(path)
    form = path.suffix.lower().lstrip(".")
    # Ids from a fixed salt and no date: the same figure gives the same bytes.
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
    with mpl.rc_context({"svg.hashsalt": "redtest-onnx"}):
        write_atomic(path, lambda target: figure.savefig(target, format=form, dpi=_DPI, metadata=metadata))


def shown_labels(names: Sequence[str], most: int = _MOST_LABELS) -> list[tuple[int, str]]:
    """Positions and labels of evenly spaced names: as many as stand side by side, each with its position.

    Of names that are very long the end is shown, behind an ellipsis: it tells layers apart.
    """
    step = max(1, -(-len(names) // most))
    return [(k, f"{short_label(names[k])}  {k}") for k in range(0, len(names), step)]


def short_label(name: str) -> str:
    """A name for an axis; very long ones lose their beginning, which an ellipsis says."""
    shown = plain(name)
    return shown if len(shown) <= _LONGEST_LABEL else "…" + shown[1 - _LONGEST_LABEL :]


def place_labels(
    axes: Axes, labels: Sequence[tuple[float, float, str]], avoid: Sequence[tuple[float, float]]
) -> None:
    """Write names beside points where they cover no point, no other name and no edge.

    Args:
        axes: with their scales and limits set.
        labels: position of the point and text, the most important first; what finds no room is left out.
        avoid: positions of all points.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    figure = axes.figure
    figure.figure.set_dpi(_DPI)  # of the file: letters are not as wide at another resolution
    canvas: Any = FigureCanvasAgg(figure.figure)
    canvas.draw()  # fixes the layout that places are found in
    renderer = canvas.get_renderer()
    inside = axes.get_window_extent(renderer)
    legend = axes.get_legend()
    half = _POINT * _DPI / 72
    taken = [
        Bbox.from_extents(x - half, y - half, x + half, y + half)
        for x, y in map(axes.transData.transform, avoid)
    ]
    taken += [legend.get_window_extent(renderer)] if legend else []
    for x, y, text in labels:
        for across, up, align in ((7, 5, "left"), (7, -12, "left"), (-7, 5, "right"), (-7, -12, "right")):
            note = axes.annotate(
                short_label(text), (x, y), textcoords="offset points", xytext=(across, up), fontsize=7.5,
                ha=align, parse_math=False,
            )  # fmt: skip
            box = note.get_window_extent(renderer)
            fits = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if fits and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            note.remove()


def fold_title(text: str) -> str:
    """A title on as many lines as it needs to stay inside the figure."""
    return "\n".join(textwrap.fill(plain(line), _TITLE_WIDTH) for line in text.split("\n"))

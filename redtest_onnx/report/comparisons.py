"""A comparison as a table, a picture and a document."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from redtest_onnx.graph.files import write_atomic
from redtest_onnx.similarity.compare import Comparison

_MOST_LABELS = 40


def match_table(comparison: Comparison) -> Table:
    """Each layer of the first side beside the most similar one of the second."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("layer")
    table.add_column("most similar to")
    table.add_column("similarity", justify="right")
    for name, best, values in zip(comparison.rows, comparison.best, comparison.similarity, strict=True):
        match = "" if best is None else escape(comparison.columns[best])
        table.add_row(escape(name), match, "undefined" if best is None else f"{values[best]:.4f}")
    return table


def save_cross_heatmap(comparison: Comparison, titles: tuple[str, str], path: Path) -> None:
    """Write the heat map; the suffix of `path` tells the format (.png, .svg, .pdf)."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 7.4), layout="constrained")
    axes = figure.subplots()
    colours = colormaps["magma"].with_extremes(bad="0.8")
    values = np.ma.masked_invalid(comparison.similarity)
    image = axes.imshow(values, vmin=0, vmax=1, cmap=colours, interpolation="nearest")
    axes.set_title(f"{titles[0]} (rows) and {titles[1]} (columns)", fontsize=11, parse_math=False)
    rows, columns = (
        range(0, len(names), max(1, -(-len(names) // _MOST_LABELS)))
        for names in (comparison.rows, comparison.columns)
    )
    labels = [f"{comparison.rows[k]}  {k}"[-34:] for k in rows]
    axes.set_yticks(rows, labels=labels, fontsize=7, parse_math=False)
    labels = [f"{comparison.columns[k]}  {k}"[-34:] for k in columns]
    axes.set_xticks(columns, labels=labels, fontsize=7, rotation=90, parse_math=False)
    figure.colorbar(image, ax=axes, label=f"CKA, {comparison.settings.estimator}", shrink=0.8)
    write_atomic(
        path, lambda target: figure.savefig(target, format=path.suffix.lstrip(".") or "png", dpi=160)
    )

"""A comparison as a table, a picture and a document."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from redtest_onnx.report.annotations import annotation
from redtest_onnx.report.figures import fold_title, save_figure, shown_labels
from redtest_onnx.report.numbers import plural
from redtest_onnx.report.table import Column, Table
from redtest_onnx.report.table_formats import markdown_text, table_markdown
from redtest_onnx.similarity.compare import Comparison
from redtest_onnx.text import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def match_table(comparison: Comparison) -> Table:
    """Each layer of the first side beside the most similar one of the second."""
    columns = (
        Column("index", "#", "integer", drop=1),
        Column("layer", "layer", "name"),
        Column("match", "most similar to", "name"),
        Column("similarity", "similarity", "similarity", bar=True),
    )
    rows = []
    for k, (name, best, values) in enumerate(
        zip(comparison.rows, comparison.best, comparison.similarity, strict=True)
    ):
        match = "" if best is None else comparison.columns[best]
        rows.append((k, name, match, math.nan if best is None else float(values[best])))
    return Table("matches", "Most similar layers", columns, tuple(rows))


def compare_markdown(
    comparison: Comparison,
    titles: tuple[str, str],
    side_by_side: Sequence[Table] = (),
    notes: Sequence[str] = (),
) -> str:
    """A summary for pull requests: in a sentence, what changed, and the layers folded away.

    Args:
        comparison: similarity of layers.
        titles: what the two sides are called.
        side_by_side: tables of both files.
        notes: what to mind about these.
    """
    one, two = map(markdown_text, titles)
    return "\n".join(
        [
            f"### {one} and {two}",
            "",
            markdown_text(compare_headline(comparison)),
            "",
            *map(table_markdown, side_by_side),
            *(f"{markdown_text(note)}\n" for note in notes),
            "<details><summary>Most similar layers</summary>",
            "",
            table_markdown(match_table(comparison)),
            "</details>",
            "",
        ]
    )


def compare_github(comparison: Comparison, titles: tuple[str, str]) -> str:
    """A workflow command that GitHub shows as an annotation."""
    return annotation("notice", f"{titles[0]} and {titles[1]}", compare_headline(comparison), titles[1])


def compare_gitlab(comparison: Comparison, titles: tuple[str, str]) -> str:
    """GitLab's code quality report with an entry for the comparison."""
    mark = hashlib.sha256("\n".join(("compare", *titles)).encode("utf-8", "surrogatepass")).hexdigest()
    entry = {
        "description": plain(f"{titles[0]} and {titles[1]}: {compare_headline(comparison)}"),
        "check_name": "redtest-onnx compare",
        "fingerprint": mark[:32],
        "severity": "info",
        "location": {"path": plain(titles[1]), "lines": {"begin": 1}},
    }
    return json.dumps([entry], indent=2) + "\n"


def compare_headline(comparison: Comparison) -> str:
    """How alike the two sides are, in a sentence."""
    values = [
        float(row[best])
        for row, best in zip(comparison.similarity, comparison.best, strict=True)
        if best is not None
    ]
    measured = (
        f"measured on {plural(comparison.batches, 'batch', 'batches')} of "
        f"{plural(comparison.samples, 'sample')}"
    )
    sizes = f"{plural(len(comparison.rows), 'layer')} and {plural(len(comparison.columns), 'layer')}"
    if not values:
        return f"{sizes}, {measured}: no similarity is defined."
    low, middle = min(values), sorted(values)[len(values) // 2]
    return (
        f"{sizes}, {measured}. The best match of a layer has a median similarity of {middle:.3f}; "
        f"the lowest is {low:.3f}."
    )


def save_cross_heatmap(comparison: Comparison, titles: tuple[str, str], path: Path) -> None:
    """Write the heat map; the suffix of `path` tells the format (.png, .svg, .pdf)."""
    save_figure(draw_cross_heatmap(comparison, titles), path)


def draw_cross_heatmap(comparison: Comparison, titles: tuple[str, str]) -> Figure:
    """CKA of all layers of one side (rows) with all of the other (columns), filling the figure."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    rows, columns = shown_labels(comparison.rows), shown_labels(comparison.columns)
    longest = max(len(name) for _, name in (*rows, *columns))
    height = min(12.0, max(4.5, 0.19 * len(rows) + 0.065 * longest + 1.6))
    figure = Figure(figsize=(9.0, height), layout="constrained")
    axes = figure.subplots()
    colours = colormaps["viridis"].with_extremes(bad="0.8")
    values = np.ma.masked_invalid(comparison.similarity)
    image = axes.imshow(values, vmin=0, vmax=1, cmap=colours, interpolation="nearest", aspect="auto")
    figure.suptitle(
        fold_title(f"{titles[0]} (rows) and {titles[1]} (columns)"), fontsize=11, parse_math=False
    )
    style: dict[str, Any] = {"fontsize": 7, "parse_math": False}
    axes.set_yticks([k for k, _ in rows], labels=[name for _, name in rows], **style)
    axes.set_xticks([k for k, _ in columns], labels=[name for _, name in columns], rotation=90, **style)
    figure.colorbar(image, ax=axes, label=f"CKA, {comparison.settings.estimator}", pad=0.02, fraction=0.05)
    return figure

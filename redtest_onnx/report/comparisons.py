"""A comparison as a table, a picture and a document."""

from __future__ import annotations

from math import inf, isnan
from pathlib import Path

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from redtest_onnx.graph.files import write_atomic
from redtest_onnx.report.agreement import agreement_notes, agreement_rows
from redtest_onnx.report.tables import accuracy_rows, cost_rows
from redtest_onnx.similarity.compare import Comparison
from redtest_onnx.similarity.side_by_side import SideBySide
from redtest_onnx.similarity.tensors import TensorComparison

_MOST_LABELS = 40
_MOST_TENSORS = 12
_NAMED = 4


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


def files_table(found: SideBySide, titles: tuple[str, str]) -> Table:
    """Size, cost, latency, agreement and accuracy of two files."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in (*titles, "change"):
        table.add_column(escape(name), justify="right")
    a, b = found.before, found.after
    for row in cost_rows((a.cost, a.file_bytes, a.latency), (b.cost, b.file_bytes, b.latency)):
        table.add_row(*row)
    for row in accuracy_rows(a.accuracy, b.accuracy):
        table.add_row(*row)
    for name, value in agreement_rows(found.agreement) if found.agreement else []:
        table.add_row(escape(name), "", value, "")
    return table


def files_notes(found: SideBySide) -> list[str]:
    """What to mind about the table."""
    if found.agreement is None:
        return [f"{(found.note or 'the outputs were not compared').capitalize()}."]
    return [
        *agreement_notes(found.agreement.outputs),
        f"Outputs are compared on {found.samples} samples of {found.source}.",
    ]


def tensor_table(found: TensorComparison, *, every: bool) -> Table:
    """Matching tensors in the order of the graph: all, or those with the lowest signal-to-noise ratio."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("tensor")
    table.add_column("operator")
    for name in ("SNR", "cosine", "largest error", "largest value"):
        table.add_column(name, justify="right")
    shown = found.tensors
    if not every and len(shown) > _MOST_TENSORS:
        worst = sorted(shown, key=lambda item: item.snr_db)[:_MOST_TENSORS]
        shown = tuple(item for item in shown if item in worst and item.snr_db < inf)
    for item in shown:
        name = item.first if item.first == item.second else f"{item.first} = {item.second}"
        cells = _figure(item.cosine, ".6f"), _figure(item.largest_error, ".3g"), f"{item.largest_value:.3g}"
        table.add_row(escape(name), item.op, _decibels(item.snr_db), *cells)
    return table


def tensor_words(found: TensorComparison) -> list[str]:
    """Where the two part, and what could not be compared."""
    count = len(found.tensors)
    if not count:
        return ["No tensor of the two files matches: they are no versions of one network."]
    words = [f"{count} tensors match, compared on {found.samples} samples."]
    first, different = found.first_divergent, found.first_different
    if different is None:
        words.append("All of them are equal.")
    elif first is None:
        words.append(
            f"None falls below {found.diverges_below:g} dB; the first that differs at all is "
            f"{different.first} ({different.op}), {_decibels(different.snr_db)}."
        )
    else:
        words.append(
            f"The first that diverges (below {found.diverges_below:g} dB) is {first.first} ({first.op}): "
            f"{_decibels(first.snr_db)}."
        )
    for side, names in zip(("first", "second"), found.unmatched, strict=True):
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            words.append(f"Only in the {side} file: {', '.join(names[:_NAMED])}{more}.")
    return words


def _decibels(value: float) -> str:
    if value == inf:
        return "equal"
    return "not comparable" if value == -inf else f"{value:.1f} dB"


def _figure(value: float, form: str) -> str:
    return "-" if isnan(value) else format(value, form)


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

"""Two files side by side and tensor by tensor, as tables and in words."""

from __future__ import annotations

from math import inf, isnan

from redtest_onnx.report.agreement import agreement_notes, agreement_rows
from redtest_onnx.report.numbers import plural
from redtest_onnx.report.table import Cell, Column, Shown, Table
from redtest_onnx.report.tables import accuracy_rows, change_columns, cost_rows
from redtest_onnx.similarity.side_by_side import SideBySide
from redtest_onnx.similarity.tensors import TensorComparison, TensorDifference

_MOST_TENSORS = 12
_NAMED = 4


def files_table(found: SideBySide, titles: tuple[str, str]) -> Table:
    """Size, cost, latency, agreement and accuracy of two files."""
    a, b = found.before, found.after
    rows: list[tuple[Cell, ...]] = [
        *cost_rows((a.cost, a.file_bytes, a.latency), (b.cost, b.file_bytes, b.latency)),
        *accuracy_rows(a.accuracy, b.accuracy, found.samples),
        *(agreement_rows(found.agreement, found.samples) if found.agreement else ()),
    ]
    return Table("files", "Side by side", change_columns(*titles), tuple(rows))


def files_notes(found: SideBySide) -> list[str]:
    """What to mind about the table."""
    if found.agreement is None:
        return [f"{(found.note or 'the outputs were not compared').capitalize()}."]
    return [
        *agreement_notes(found.agreement.outputs),
        f"Outputs are compared on {plural(found.samples, 'sample')} of {found.source}.",
    ]


def tensor_table(found: TensorComparison, *, every: bool) -> Table:
    """Matching tensors in the order of the graph: all, or those with the lowest signal-to-noise ratio."""
    columns = (
        Column("tensor", "tensor", "name"),
        Column("operator", "operator", drop=2),
        Column("snr_db", "SNR", "decimal"),
        Column("cosine", "cosine", "decimal", drop=1),
        Column("largest_error", "largest error", "decimal"),
        Column("largest_value", "largest value", "decimal", drop=3),
    )
    shown = found.tensors if every else _worst(found.tensors)
    title = "Matching tensors" if shown is found.tensors else "Matching tensors that differ most"
    return Table("tensors", title, columns, tuple(map(_tensor_row, shown)))


def _worst(tensors: tuple[TensorDifference, ...]) -> tuple[TensorDifference, ...]:
    """Those with the lowest signal-to-noise ratio, in their order; all if they are few."""
    if len(tensors) <= _MOST_TENSORS:
        return tensors
    worst = sorted(tensors, key=lambda item: item.snr_db)[:_MOST_TENSORS]
    return tuple(item for item in tensors if item in worst and item.snr_db < inf)


def _tensor_row(item: TensorDifference) -> tuple[Cell, ...]:
    name = item.first if item.first == item.second else f"{item.first} = {item.second}"
    snr = item.snr_db if abs(item.snr_db) < inf else None
    return (
        name,
        item.op,
        Shown(snr, _decibels(item.snr_db)),
        _figure(item.cosine, ".6f"),
        _figure(item.largest_error, ".3g"),
        _figure(item.largest_value, ".3g"),
    )


def tensor_words(found: TensorComparison, *, every: bool) -> list[str]:
    """Where the two part, and what could not be compared; `every` as in `tensor_table`."""
    count = len(found.tensors)
    if not count:
        return ["No tensor of the two files matches: they are no versions of one network."]
    matching = plural(count, "tensor matches", "tensors match")
    listed = len(found.tensors if every else _worst(found.tensors))
    only = f"; the table lists the {listed} that differ most" if 0 < listed < count else ""
    words = [f"{matching}, compared on {plural(found.samples, 'sample')}{only}."]
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


def _figure(value: float, form: str) -> Shown:
    return Shown(None, "-") if isnan(value) else Shown(value, format(value, form))

"""Tables as text: for terminals, spreadsheets, pull requests and programs."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Literal, get_args

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from redtest_onnx.report.table import Cell, Column, Table, value_of
from redtest_onnx.text import plain

TableFormat = Literal["table", "csv", "markdown", "json"]
TABLE_FORMATS: tuple[TableFormat, ...] = get_args(TableFormat)
_GAP = 3  # between columns, as box.SIMPLE_HEAD pads them
# What spreadsheets take for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def terminal_table(table: Table, width: int | None = None) -> RenderableType:
    """A table for a terminal. Names are never cut: they are folded where nothing else helps.

    Args:
        table: the table.
        width: columns of the terminal: what doesn't fit is left out, by `Column.drop`, and named below the
            table; None for as wide as it needs to be.
    """
    cells, notes = _cells(table)
    kept = list(range(len(table.columns)))
    left_out: list[str] = []
    while width is not None and _width(table, cells, kept) > width:
        k = max(kept, key=lambda k: table.columns[k].drop)
        if table.columns[k].drop == 0:
            break
        kept.remove(k)
        left_out.append(table.columns[k].title)
    made = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for k in kept:
        column = table.columns[k]
        made.add_column(
            Text(plain(column.title)),
            justify="right" if column.numeric else "left",
            overflow="fold",
            no_wrap=column.kind != "name",
        )
    for i, row in enumerate(cells):
        made.add_row(*(Text(row[k]) for k in kept), style="dim" if i in table.marked else None)
    shown_notes = any(table.columns[k].kind == "reason" for k in kept)
    below = [f"[{number}] {reason}" for reason, number in notes.items()] if shown_notes else []
    if left_out:
        below.append(f"Not shown for want of width: {', '.join(reversed(left_out))}.")
    return Group(made, *(Text(line) for line in below)) if below else made


def _cells(table: Table) -> tuple[list[list[str]], dict[str, int]]:
    """Text of all cells, and the number of each reason in the order of its first use."""
    notes: dict[str, int] = {}

    def text(column: Column, cell: Cell) -> str:
        shown = plain(column.text(cell))
        if column.kind != "reason" or not shown:
            return shown
        short, colon, reason = shown.partition(": ")
        if not colon:
            return shown
        return f"{short} [{notes.setdefault(reason, len(notes) + 1)}]"

    rows = [[text(*pair) for pair in zip(table.columns, row, strict=True)] for row in table.rows]
    return rows, notes


def _width(table: Table, cells: list[list[str]], kept: list[int]) -> int:
    columns = [max([len(table.columns[k].title), *(len(row[k]) for row in cells)]) for k in kept]
    return sum(columns) + _GAP * (len(kept) - 1) + 2


def table_csv(table: Table) -> str:
    """Comma-separated values with a head; numbers in full, undefined ones empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    for row in table.rows:
        writer.writerow([_csv(value_of(cell)) for cell in row])
    return stream.getvalue()


def _csv(value: str | int | float | None) -> str | int | float:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, str):
        text = plain(value)
        return f"'{text}" if text.startswith(_FORMULA) else text
    return value


def table_json(table: Table) -> str:
    """A list with an object per row; undefined numbers are null."""
    keys = [column.key for column in table.columns]
    rows = [dict(zip(keys, map(_json, row), strict=True)) for row in table.rows]
    return json.dumps(rows, indent=2, allow_nan=False) + "\n"


def _json(cell: Cell) -> str | int | float | None:
    value = value_of(cell)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table_markdown(table: Table) -> str:
    """A table that GitHub, GitLab and documentation sites show as it is; cells hold no markup."""
    lines = [
        f"| {' | '.join(markdown_text(column.title) for column in table.columns)} |",
        f"|{'|'.join('---:' if column.numeric else '---' for column in table.columns)}|",
    ]
    for row in table.rows:
        cells = [markdown_text(column.text(cell)) for column, cell in zip(table.columns, row, strict=True)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no mention of people, no link."""
    return re.sub(r"([\\`*_{}\[\]<>()#+\-!|~&@:])", r"\\\1", plain(text)) or " "


def render_table(table: Table, form: TableFormat) -> str:
    """A table as text for a file or a pipe."""
    makers: Mapping[str, Callable[[Table], str]] = {
        "csv": table_csv,
        "markdown": table_markdown,
        "json": table_json,
    }
    return makers[form](table)

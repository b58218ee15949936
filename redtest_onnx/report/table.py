"""One model of a table, which terminals, pages, CSV, Markdown and JSON render."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from redtest_onnx.report import numbers

Kind = Literal[
    "text", "name", "reason", "integer", "count", "bytes", "milliseconds", "share", "similarity", "decimal"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
_SHOW: Mapping[Kind, Callable[[float | None], str]] = {
    "integer": lambda value: "?" if value is None else f"{value:,.0f}",
    "count": numbers.count,
    "bytes": numbers.size,
    "milliseconds": numbers.milliseconds,
    "share": numbers.percent,
    "similarity": numbers.similarity,
    "decimal": numbers.decimal,
}


@dataclass(frozen=True)
class Shown:
    """A cell that programs and people read differently, such as a number in a column of mixed units."""

    value: str | float | None
    text: str


Cell = str | int | float | Shown | None


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        key: its name for programs: the field of JSON and the head of CSV.
        title: its head for people.
        kind: "name" is never cut, "reason" is numbered below the table on terminals; the others say the unit
            of the numbers.
        drop: terminals that are too narrow leave out columns with high numbers first; 0 always stays.
        bar: whether pages draw a bar behind the number.
    """

    key: str
    title: str
    kind: Kind = "text"
    drop: int = 0
    bar: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} of column {self.key!r} is not one of {', '.join(KINDS)}")

    @property
    def numeric(self) -> bool:
        """Whether it holds numbers, which stand to the right."""
        return self.kind in _SHOW

    def text(self, cell: Cell) -> str:
        """A cell as people read it."""
        if isinstance(cell, Shown):
            return cell.text
        if isinstance(cell, str):
            return cell
        return _SHOW[self.kind](cell) if self.numeric else "" if cell is None else str(cell)


@dataclass(frozen=True)
class Table:
    """Rows under columns.

    Attributes:
        key: its name for programs.
        title: its heading for people.
        columns: what each row holds.
        rows: cells of each row, as many as there are columns.
        marked: indices of rows that stand out: removed layers, the chosen point.
    """

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.key!r}: {len(row)} cells for {len(self.columns)} columns")


def value_of(cell: Cell) -> str | int | float | None:
    """A cell as programs read it."""
    return cell.value if isinstance(cell, Shown) else cell

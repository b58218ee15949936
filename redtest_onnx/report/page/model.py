"""What a page shows, whatever command it is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from redtest_onnx.report.table import Kind, Table

Tone = Literal["", "good", "bad"]


@dataclass(frozen=True)
class Card:
    """A figure at the top of the page.

    Attributes:
        title: what it is.
        value: the figure itself, such as "-29.6%".
        detail: what stands below it, such as "1.2 M -> 0.8 M".
        tone: whether the figure is good or bad news.
    """

    title: str
    value: str
    detail: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Item:
    """A thing along an axis, such as a layer.

    Attributes:
        name: as the user writes it.
        detail: kind and cost in a few words, for the hover text.
        marked: whether it was removed, or is chosen.
    """

    name: str
    detail: str = ""
    marked: bool = False


@dataclass(frozen=True, eq=False)
class Matrix:
    """A heat map.

    Attributes:
        title: for the switch between matrices, such as "before".
        rows: items of the rows, L.
        columns: items of the columns, M; the same as `rows` for a symmetric matrix.
        values: [L, M] float64 of 0 to 1; NaN where undefined.
        measure: what the values are, such as "CKA".
    """

    title: str
    rows: tuple[Item, ...]
    columns: tuple[Item, ...]
    values: npt.NDArray[np.float64]
    measure: str = "CKA"

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.rows), len(self.columns)):
            raise ValueError(
                f"{len(self.rows)} rows, {len(self.columns)} columns, {self.values.shape} values"
            )

    @property
    def symmetric(self) -> bool:
        """Whether rows and columns are the same items."""
        return self.rows is self.columns


@dataclass(frozen=True)
class Panel:
    """A value of every item, drawn as a column.

    Attributes:
        title: what it is.
        kind: its unit.
        values: one per item; None where unknown.
        line: a value to draw a line at, such as a threshold.
    """

    title: str
    kind: Kind
    values: tuple[float | None, ...]
    line: float | None = None


@dataclass(frozen=True)
class Columns:
    """Panels of columns above each other, over the same items.

    Attributes:
        title: heading.
        items: what has a column in each panel.
        panels: the values.
        note: a sentence below the heading.
        numbered: whether positions of items are written below, as in the tables.
        ends: what is written below the first and the last item of an axis without numbers.
    """

    title: str
    items: tuple[Item, ...]
    panels: tuple[Panel, ...]
    note: str = ""
    numbered: bool = True
    ends: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """A point of a chart.

    Attributes:
        x: position.
        y: position.
        name: what it stands for.
        detail: further figures, for the hover text.
        label: what is written beside it; the name unless given.
        front: whether it lies on the line of best points.
        chosen: whether it was taken.
        colour: 0 to 1 on the scale of colours; None for plain.
    """

    x: float
    y: float
    name: str
    detail: str = ""
    label: str = ""
    front: bool = False
    chosen: bool = False
    colour: float | None = None


@dataclass(frozen=True)
class PageAxis:
    """An axis of a chart of points."""

    title: str
    kind: Kind
    log: bool = False


@dataclass(frozen=True)
class Points:
    """A chart of points; those of the front are joined by a line."""

    title: str
    x: PageAxis
    y: PageAxis
    points: tuple[Point, ...]
    note: str = ""


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: its heading.
        headline: what happened, what it saves and costs, in a sentence or two.
        warnings: what to mind about the figures.
        cards: figures at the top.
        matrices: heat maps to switch between.
        charts: columns and points.
        tables: the first is the main one; tables follow the charts.
        facts: what was measured on what, as name and value: command, versions, date, hashes.
        protect: key of the table whose names can be copied as `--protect`; None for no such button.
        marking: what marked items are, for legends.
    """

    title: str
    headline: str
    warnings: tuple[str, ...] = ()
    cards: tuple[Card, ...] = ()
    matrices: tuple[Matrix, ...] = ()
    charts: tuple[Columns | Points, ...] = ()
    tables: tuple[Table, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    protect: str | None = None
    marking: str = "removed"


def finite(values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Values with None for what is undefined."""
    return tuple(None if v is None or not np.isfinite(v) else float(v) for v in values)

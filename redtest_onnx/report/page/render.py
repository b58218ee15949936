"""From the model of a page to one HTML file."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from redtest_onnx.graph.writing import write_atomic
from redtest_onnx.report.page.encode import encode, picture
from redtest_onnx.report.page.model import Columns, Item, Page, Points
from redtest_onnx.report.table import Cell, Column, Table, value_of
from redtest_onnx.text import plain

_SCRIPTS = ("base.js", "matrix.js", "columns.js", "points.js", "table.js", "main.js")
_LONG_TITLE = 12  # letters from which on a phone has no room for two values beside their titles
_OPTION = re.compile(r"(?<!\S)--?[a-z][\w-]*")


def save_page(page: Page, path: Path) -> None:
    """Write a page.

    Raises:
        OutputError: it can't be written.
    """
    text = render_page(page)
    write_atomic(path, lambda target: target.write_text(text, encoding="utf-8"))


def render_page(page: Page) -> str:
    """The page as HTML that needs nothing beside itself and lets nothing out.

    Names are text in the HTML, and JSON in a script element whose "<" are escaped; the page's policy allows
    no script but ours, by its hash, and no request at all.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("redtest_onnx.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
    )
    folder = files("redtest_onnx.report") / "page"
    script = "\n".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return environment.get_template("page.html.j2").render(
        page=page,
        script=script,
        script_hash=digest,
        style=(folder / "page.css").read_text(encoding="utf-8"),
        data=_script_json(_data(page)),
        pictures=[(matrix, picture(matrix)) for matrix in page.matrices],
        raw=_raw,
        css=_css,
        share=_shares(page),
        longest=_longest(page),
        stacked={table.key for table in page.tables if _has_long_titles(table)},
        facts=[
            (name, [value for _, value in group]) for name, group in groupby(page.facts, lambda fact: fact[0])
        ],
        unbroken=_unbroken,
        paired=next((k for k, c in enumerate(page.charts) if isinstance(c, Columns)), -1)
        if page.matrices
        else -1,
    )


def _clean(value: object) -> object:
    """Control characters as numbers; what is marked safe is our own."""
    return plain(value) if type(value) is str else value


def _raw(cell: Cell) -> str:
    """What a cell is sorted by."""
    value = value_of(cell)
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    return "" if value is None else str(value)


def _css(text: str) -> Markup:
    """Text for a string in a style sheet."""
    return Markup("".join(c if c.isalnum() or c == " " else f"\\{ord(c):x} " for c in text))


def _unbroken(text: str) -> Markup:
    """A text whose options stay on one line: browsers break lines behind hyphens."""
    written, end = Markup(), 0
    for found in _OPTION.finditer(text := plain(text)):
        written += escape(text[end : found.start()]) + Markup("<span class=option>{}</span>").format(found[0])
        end = found.end()
    return written + escape(text[end:])


def _has_long_titles(table: Table) -> bool:
    return any(len(c.title) > _LONG_TITLE for c in table.columns if c.kind not in ("name", "reason"))


def _shares(page: Page) -> dict[tuple[str, str], float]:
    """For columns with bars the largest value, which fills the cell."""
    return {
        (table.key, column.key): _largest(column, (row[k] for row in table.rows))
        for table in page.tables
        for k, column in enumerate(table.columns)
        if column.bar
    }


def _longest(page: Page) -> dict[str, int]:
    """How wide the names of a table are, in characters, as far as there is room for them."""
    widths = {}
    for table in page.tables:
        names = [k for k, column in enumerate(table.columns) if column.kind == "name"]
        longest = max((len(str(row[k])) for row in table.rows for k in names), default=0)
        widths[table.key] = min(longest, 50 if len(names) == 1 else 20)
    return widths


def _largest(column: Column, cells: Iterable[Cell]) -> float:
    if column.kind == "similarity":
        return 1.0
    numbers = [value for cell in cells if isinstance(value := value_of(cell), int | float) and value == value]
    return float(max(numbers, default=0)) or 1.0


def _data(page: Page) -> dict[str, Any]:
    series: list[tuple[Item, ...]] = []  # the same layers stand along several axes

    def number(items: tuple[Item, ...]) -> int:
        if items not in series:
            series.append(items)
        return series.index(items)

    matrices = [
        {
            "title": matrix.title,
            "measure": matrix.measure,
            "symmetric": matrix.symmetric,
            "rows": number(matrix.rows),
            "columns": number(matrix.columns),
            **asdict(encoded),
        }
        for matrix, encoded in zip(page.matrices, encode(page.matrices), strict=True)
    ]
    charts = [
        _points(chart)
        if isinstance(chart, Points)
        else {
            "type": "columns",
            "items": number(chart.items),
            "numbered": chart.numbered,
            "ends": chart.ends,
            "panels": [
                {**asdict(panel), "values": list(map(_short, panel.values))} for panel in chart.panels
            ],
        }
        for chart in page.charts
    ]
    return {
        "marking": page.marking,
        "matrices": matrices,
        "charts": charts,
        "series": [[[plain(i.name), plain(i.detail), int(i.marked)] for i in items] for items in series],
    }


def _points(chart: Points) -> dict[str, Any]:
    points = [
        {**asdict(p), **{key: plain(getattr(p, key)) for key in ("name", "detail", "label")}}
        for p in chart.points
    ]
    return {"type": "points", "x": asdict(chart.x), "y": asdict(chart.y), "points": points}


def _short(value: float | None) -> float | None:
    """Six significant digits: more can't be seen, and many layers have many numbers."""
    return None if value is None else float(f"{value:.6g}")


def _script_json(data: object) -> str:
    """JSON for a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

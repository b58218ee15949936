"""Measures of candidates in a CSV file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redtest_onnx.errors import InputError
from redtest_onnx.graph.reading import read_text
from redtest_onnx.ranking.candidate import Candidate

Row = Mapping[str, float]

_MOST_NAMED = 8
_NAMES = ("name", "architecture", "model", "file")
_SHARES = ("accuracy", "test_accuracy")
_COUNTS = ("parameters", "macs", "layers", "undefined", "depth")
_SIZES = (*_COUNTS, "latency_ms", "msrs")
_SCORES = ("synflow", "jacob_cov", "naswot")
NUMBERS = (*_SHARES, *_SIZES, *_SCORES)
"""The columns that are read. Shares lie within 0 and 1, sizes are not negative, scores may be any number."""


@dataclass(frozen=True, eq=False)
class AccuracyTable:
    """Measures in a CSV file: a column `name` (or `architecture`, `model`, `file`) and those of `NUMBERS`.

    They take the place of what would be measured; empty cells, and those that hold "nan", do not.

    Attributes:
        path: the file.
        columns: all of its columns, in order.
        rows: the numbers of each row by its name, in order.
    """

    path: Path
    columns: tuple[str, ...]
    rows: Mapping[str, Row]

    @classmethod
    def read(cls, path: Path) -> AccuracyTable:
        """What a file holds now.

        Raises:
            InputError: unreadable, no column of names, a name twice, or a value that is no number.
        """
        try:
            reader = csv.DictReader(io.StringIO(read_text(path), newline=""), restval="")
            rows = list(reader)
        except csv.Error as error:
            raise InputError(f"can't be read: {error}", where=str(path)) from error
        columns = tuple(reader.fieldnames or ())
        column = next((name for name in _NAMES if name in columns), None)
        if column is None:
            raise InputError(f"has no column of names; one of {', '.join(_NAMES)} is needed", where=str(path))
        table: dict[str, Row] = {}
        for line, row in enumerate(rows, start=2):
            name = row[column]
            if None in row:
                raise InputError(f"line {line}: it has more cells than columns", where=str(path))
            if name in table:
                raise InputError(f"line {line}: {name!r} is there twice", where=str(path))
            cells = {kind: _number(row[kind], kind, line, path) for kind in NUMBERS if row.get(kind)}
            table[name] = {kind: value for kind, value in cells.items() if value is not None}
        return cls(path, columns, table)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its rows, in order."""
        return tuple(self.rows)

    def look_up(self, architecture: str) -> Row:
        """The row of this name; its accuracy must be there.

        Raises:
            InputError: it is not.
        """
        found = self.row(architecture)
        if "accuracy" not in found:
            raise InputError(f"has no accuracy for {architecture!r}", where=str(self.path))
        return found

    def row(self, architecture: str) -> Row:
        """What the row of this name holds; nothing if there is none."""
        return self.rows.get(architecture, {})

    def row_of(self, name: str) -> str | None:
        """The name of a model's row: the path as given, the file's name, or its name without suffix."""
        path = Path(name)
        return next((known for known in (name, path.name, path.stem) if known in self.rows), None)

    def lacks(self, name: str, column: str) -> str | None:
        """Why the table does not tell a measure of a model, in words; None if it does."""
        row = self.row_of(name)
        if column not in self.columns:
            return f"{self.path} has no column {column} (found: {_few(self.columns)})"
        if row is None:
            return f"{self.path} has no row {Path(name).name} (found: {_few(self.names)})"
        return None if column in self.row(row) else f"{self.path} has an empty {column} for {row}"

    def has_all(self, measures: tuple[str, ...]) -> bool:
        """Whether every row with an accuracy has all the given measures as well."""
        rows = (row for row in self.rows.values() if "accuracy" in row)
        return all(measure in row for row in rows for measure in measures)

    def has_any(self, measure: str) -> bool:
        """Whether some row has a measure."""
        return any(measure in row for row in self.rows.values())

    def candidates(self) -> list[Candidate]:
        """Every row as a candidate."""
        return [Candidate(name=name, **candidate_values(row)) for name, row in self.rows.items()]


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more}"


def candidate_values(row: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a candidate that a row holds; it names the table as where its MSRS is from."""
    return {**row, "msrs_from": "table"} if "msrs" in row else dict(row)


def _number(text: str, kind: str, line: int, path: Path) -> float | None:
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"line {line}: {kind} is {text!r}, no number", where=str(path)) from error
    if math.isnan(value):
        return None
    if kind in _SHARES and not 0 <= value <= 1:
        raise InputError(
            f"line {line}: accuracy {text} is no share of 1", where=str(path), hint="write 92.5 % as 0.925"
        )
    if not math.isfinite(value) or (kind in _SIZES and value < 0):
        raise InputError(
            f"line {line}: {kind} is {text!r}, no {'size' if kind in _SIZES else 'finite number'}",
            where=str(path),
        )
    return int(value) if kind in _COUNTS else value

"""Texts in files: a line, an entry of a table or a JSON object each."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redtest_onnx.errors import InputError, RuntimeUnavailableError

_TEXT = ("text", "sentence", "sentence1", "query", "question", "premise", "content", "document", "title")
_LABEL = ("label", "labels", "class", "target", "category")
_LARGEST_FIELD = 1 << 24


@dataclass(frozen=True)
class TextRows:
    """Texts with what stands beside them.

    Attributes:
        texts: the texts.
        pairs: the second text of each pair; None where there are no pairs.
        labels: the class of each text; None without labels.
        classes: names of the classes, where labels were words; in the order of their numbers.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None = None
    labels: tuple[int, ...] | None = None
    classes: tuple[str, ...] = ()


def read_texts(
    path: Path,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
) -> TextRows:
    """Read texts from a .txt (one a line), .jsonl, .csv, .tsv or .parquet file.

    Args:
        path: the file.
        text_column: the column of the texts; `text`, `sentence` and the like if None.
        pair_column: the column of second texts, as for rerankers.
        label_column: the column of classes; `label` and the like if None and there is one.

    Raises:
        InputError: it can't be read, is empty, or has no such column.
        RuntimeUnavailableError: pyarrow is missing for a .parquet file.
    """
    suffix = path.suffix.lower()
    if suffix == ".txt":
        lines = [line.strip() for line in _read(path).splitlines()]
        found = tuple(line for line in lines if line)
        if pair_column is not None:
            raise InputError("a .txt file has no columns", where=str(path), hint="give a .csv or .jsonl file")
        return _filled(TextRows(found), path)
    rows = list(_READERS[suffix](path))
    if not rows:
        raise InputError("holds no rows", where=str(path))
    columns = [str(name) for name in rows[0]]
    text = _column(path, columns, text_column, _TEXT, "text column")
    assert text is not None
    pair = _column(path, columns, pair_column, (), "column of second texts")
    label = _column(path, columns, label_column, _LABEL, "label column", needed=label_column is not None)
    texts = tuple(_cell(path, k, row, text) for k, row in enumerate(rows))
    pairs = tuple(_cell(path, k, row, pair) for k, row in enumerate(rows)) if pair else None
    labels, classes = _labels(path, [row.get(label) for row in rows]) if label else (None, ())
    return _filled(TextRows(texts, pairs, labels, classes), path)


def _filled(rows: TextRows, path: Path) -> TextRows:
    if not rows.texts:
        raise InputError("holds no text", where=str(path))
    return rows


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 ({error.reason})", where=str(path), hint="convert it") from error
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", where=str(path)) from error


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    for k, line in enumerate(_read(path).splitlines()):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"line {k + 1} is not JSON: {error}", where=str(path)) from error
        yield row if isinstance(row, dict) else {"text": row}


def _table(path: Path) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(_LARGEST_FIELD)
    dialect = "excel-tab" if path.suffix.lower() == ".tsv" else "excel"
    yield from csv.DictReader(_read(path).splitlines(keepends=True), dialect=dialect)


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise RuntimeUnavailableError(
            "pyarrow is needed to read .parquet files", where=str(path), hint="pip install pyarrow"
        ) from error
    try:
        yield from parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise InputError(f"can't be read as parquet ({error})", where=str(path)) from error


_READERS: dict[str, Callable[[Path], Iterator[Mapping[str, Any]]]] = {
    ".jsonl": _json_lines,
    ".csv": _table,
    ".tsv": _table,
    ".parquet": _parquet,
}
SUFFIXES = frozenset({".txt", *_READERS})
"""Kinds of files that may hold texts."""


def _column(
    path: Path,
    columns: Sequence[str],
    asked: str | None,
    usual: Sequence[str],
    what: str,
    *,
    needed: bool | None = None,
) -> str | None:
    if asked is not None:
        if asked not in columns:
            raise InputError(
                f"has no column {asked!r}", where=str(path), hint=f"its columns are {', '.join(columns)}"
            )
        return asked
    lowered = {name.lower(): name for name in columns}
    found = next((lowered[name] for name in usual if name in lowered), None)
    if found is None and usual is _TEXT:
        if len(columns) == 1:
            return columns[0]
        raise InputError(
            f"no {what} was found among {', '.join(columns)}", where=str(path), hint="name it: @text_column"
        )
    return found


def _cell(path: Path, row: int, values: Mapping[str, Any], column: str) -> str:
    value = values.get(column)
    if not isinstance(value, str):
        raise InputError(f"row {row} has no text in column {column!r}", where=str(path))
    return value


def _labels(path: Path, values: Sequence[Any]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Labels as numbers; words are numbered in alphabetical order."""
    try:
        return tuple(int(value) for value in values), ()
    except (TypeError, ValueError):
        pass
    if any(not isinstance(value, str) for value in values):
        bad = next(k for k, value in enumerate(values) if not isinstance(value, str))
        raise InputError(f"row {bad} has no label", where=str(path))
    classes = tuple(sorted(set(values)))
    return tuple(classes.index(value) for value in values), classes

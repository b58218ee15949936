"""Results of a search in one SQLite file: each once, and readable while the search goes on."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import first_line
from redtest_onnx.graph.reading import require_file
from redtest_onnx.graph.writing import writable
from redtest_onnx.ranking.candidate import MeasuredCandidate

_COLUMNS = tuple(field.name for field in fields(MeasuredCandidate))
_LATER = frozenset({"msrs_from"})  # columns that files of earlier versions lack
_SCHEMA = f"""
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE results (
    number INTEGER NOT NULL UNIQUE,
    {", ".join(f"{name} TEXT PRIMARY KEY" if name == "key" else name for name in _COLUMNS)},
    error TEXT,
    finished TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
"""


@dataclass(frozen=True)
class Failure:
    """An architecture that could not be evaluated, and why."""

    key: str
    name: str
    error: str


Outcome = MeasuredCandidate | Failure
_CANDIDATE, _FAILURE = TypeAdapter(MeasuredCandidate), TypeAdapter(Failure)


class Store:
    """The file of one search, written by its driver alone.

    Args:
        connection: an open database with the tables.
        path: what messages call it.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path

    @classmethod
    def create(cls, path: Path, settings: Mapping[str, Any], *, force: bool = False) -> Store:
        """A new file.

        Args:
            path: where.
            settings: what the results depend on, as JSON values.
            force: whether a file that is there may go.

        Raises:
            OutputError: there is one and it may not, or it can't be written.
        """
        writable(path, force=force)
        for old in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
            old.unlink(missing_ok=True)
        connection = _connect(path)
        # Readers are not locked out while a result is written.
        connection.execute("PRAGMA journal_mode=WAL")
        # A power cut may lose the last results, which --resume computes again; the database stays consistent.
        connection.execute("PRAGMA synchronous=NORMAL")
        with connection:
            connection.executescript(_SCHEMA)
            rows = [(name, json.dumps(value)) for name, value in settings.items()]
            connection.executemany("INSERT INTO settings VALUES (?, ?)", rows)
        return cls(connection, path)

    @classmethod
    def open(cls, path: Path) -> Store:
        """An existing file.

        Raises:
            InputError: there is none, or it is no file of a search.
        """
        if not path.exists():
            raise InputError("no such file", where=str(path), hint="give the @output of a search")
        require_file(path)
        connection = _connect(path)
        try:
            connection.execute(
                f"SELECT number, {', '.join(_columns(connection))}, error FROM results LIMIT 1"
            )
            connection.execute("SELECT name, value FROM settings LIMIT 1")
            connection.execute("PRAGMA synchronous=NORMAL")
        except (sqlite3.Error, ValueError) as error:
            connection.close()
            raise InputError(f"holds no results of a search ({error})", where=str(path)) from error
        return cls(connection, path)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @property
    def settings(self) -> dict[str, Any]:
        """What the results depend on.

        Raises:
            InputError: the file is damaged.
        """
        with self._damage_reported():
            rows = self._connection.execute("SELECT name, value FROM settings")
            return {str(name): json.loads(value) for name, value in rows}

    def add(self, number: int, outcome: Outcome) -> None:
        """Store an outcome; one that is there already stays as it is.

        Args:
            number: position among the architectures of the search.
            outcome: what came out.
        """
        for column in sorted(_LATER - set(_columns(self._connection))):
            self._connection.execute(f"ALTER TABLE results ADD COLUMN {column}")
        values = asdict(outcome)
        names = ", ".join(values)
        places = ", ".join("?" * len(values))
        with self._connection:
            self._connection.execute(
                f"INSERT INTO results (number, {names}) VALUES (?, {places}) ON CONFLICT (key) DO NOTHING",
                (number, *values.values()),
            )

    def outcomes(self) -> dict[str, Outcome]:
        """All outcomes by key, in the order of their numbers.

        Raises:
            InputError: the file is damaged.
        """
        found: dict[str, Outcome] = {}
        with self._damage_reported():
            columns = _columns(self._connection)
            query = f"SELECT error, {', '.join(columns)} FROM results ORDER BY number"
            for error, *values in self._connection.execute(query):
                row = dict(zip(columns, values, strict=True))
                found[row["key"]] = (
                    _CANDIDATE.validate_python(row)
                    if error is None
                    else _FAILURE.validate_python({"key": row["key"], "name": row["name"], "error": error})
                )
        return found

    @contextmanager
    def _damage_reported(self) -> Iterator[None]:
        """The file may come from anywhere: what it holds may be anything."""
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise InputError(
                f"is damaged, or was written by another version ({first_line(error)})", where=str(self._path)
            ) from error


def _columns(connection: sqlite3.Connection) -> tuple[str, ...]:
    """The columns of results that a file has; those of earlier versions lack some."""
    there = {row[1] for row in connection.execute("PRAGMA table_info(results)")}
    return tuple(name for name in _COLUMNS if name in there or name not in _LATER)


def _connect(path: Path) -> sqlite3.Connection:
    try:
        return sqlite3.connect(path, timeout=30)
    except sqlite3.OperationalError as error:
        raise InputError(f"can't be opened ({error})", where=str(path)) from error

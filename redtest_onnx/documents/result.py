"""What results have in common: a short repr, a dictionary, a data frame, a file, a view in notebooks."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from redtest_onnx.documents.base import Document
from redtest_onnx.errors import RuntimeUnavailableError
from redtest_onnx.graph.writing import writable, write_atomic

_MOST_ROWS = 60  # of a table in a notebook


class Result(ABC):
    """A result of one of the stages."""

    @abstractmethod
    def summary(self) -> str:
        """The result in one line."""

    @abstractmethod
    def to_dict(self) -> Document:
        """The document that the command line writes with --json, as far as the result tells it."""

    @abstractmethod
    def records(self) -> Sequence[dict[str, Any]]:
        """What a table of the result holds: one entry per layer, step, finding or model."""

    def to_frame(self) -> Any:
        """The records as a pandas.DataFrame.

        Raises:
            RuntimeUnavailableError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise RuntimeUnavailableError("a data frame needs pandas", hint="pip install pandas") from error
        return pandas.DataFrame(list(self.records()))

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write the dictionary as a JSON file.

        Raises:
            OutputError: the file exists and `force` is not set, or it can't be written.
        """
        path = Path(path)
        writable(path, force=force)
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        write_atomic(path, lambda target: target.write_text(text, encoding="utf-8"))
        return path

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary()}>"

    def _repr_html_(self) -> str:
        rows = list(self.records())
        names = list(dict.fromkeys(name for row in rows for name in row))
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        body = "".join(
            f"<tr>{''.join(f'<td>{_cell(row.get(name))}</td>' for name in names)}</tr>"
            for row in rows[:_MOST_ROWS]
        )
        more = f"<p>{len(rows) - _MOST_ROWS} more rows</p>" if len(rows) > _MOST_ROWS else ""
        title = f"<p><b>{type(self).__name__}</b>: {escape(self.summary())}</p>"
        return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))

"""GitHub's workflow commands: lines of a log that become annotations."""

from __future__ import annotations

from typing import Literal

from redtest_onnx.text import plain

Level = Literal["error", "warning", "notice"]


def annotation(level: Level, title: str, message: str, path: str | None = None) -> str:
    """One annotation as a line; names can't break out of it.

    Args:
        level: how it is shown.
        title: its heading.
        message: its text.
        path: the file it belongs to, relative to the repository.
    """
    place = f"file={_property(path)},line=1," if path else ""
    return f"::{level} {place}title={_property(title)}::{_data(message)}\n"


def _data(text: str) -> str:
    return plain(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")

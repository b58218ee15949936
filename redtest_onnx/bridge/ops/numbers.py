"""Arguments that the program hands over as Python numbers."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T", int, float, bool)


def single(value: T | list[T]) -> T:
    """The number of a scalar, or of a vector with one element: exporters write both."""
    return value[0] if isinstance(value, list) else value

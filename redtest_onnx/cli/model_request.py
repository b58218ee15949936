"""Options that only one command has, taken from the values of all its options."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class ModelRequest:
    """What a command is asked to do with a model; a subclass has a field for each option of its own."""

    model: Path

    @classmethod
    def of(cls, model: Path, values: dict[str, Any]) -> tuple[Self, dict[str, Any]]:
        """The request of a command's values, and the values that other option groups read."""
        own = {field.name for field in fields(cls)} - {"model"}
        rest = {name: value for name, value in values.items() if name not in own}
        return cls(model=model, **{name: values[name] for name in own}), rest

"""Which dataclasses of a package can be changed after they were made: stages hand on frozen ones."""

from __future__ import annotations

from dataclasses import is_dataclass
from importlib import import_module
from pkgutil import walk_packages


def changeable(package: str) -> set[str]:
    """Names of the dataclasses of a package and those inside it that aren't frozen."""
    found = set()
    path = import_module(package).__path__
    for module in (import_module(entry.name) for entry in walk_packages(path, f"{package}.")):
        for name, value in vars(module).items():
            own = isinstance(value, type) and value.__module__ == module.__name__
            if own and is_dataclass(value) and not value.__dataclass_params__.frozen:  # type: ignore[attr-defined]
                found.add(name)
    return found

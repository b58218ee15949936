"""What every test finds as the one before it did."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# No test depends on how fast the machine is.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


_LEVEL = logging.root.level


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """The level of messages is that of the start: commands set it, also in fixtures of whole modules."""
    logging.root.setLevel(_LEVEL)
    yield
    logging.root.setLevel(_LEVEL)


QUICK = (
    *("data", "graph", "layers", "metrics"),
    *("test_architecture.py", "test_checks.py", "test_signatures.py"),
    *("pruning/test_halving.py", "pruning/repair/test_im2col.py", "pruning/repair/test_operator_models.py"),
)
"""What `-m quick` runs: rooms and habits whose tests together take under a minute."""

TESTS = Path(__file__).parent


def is_quick(path: Path) -> bool:
    """Whether a test file belongs to the quick subset."""
    name = path.relative_to(TESTS).as_posix()
    return any(name == entry or name.startswith(f"{entry}/") for entry in QUICK)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m quick` other files are not even read."""
    if config.option.markexpr != "quick" or collection_path.suffix != ".py":
        return None
    return None if is_quick(collection_path) else True


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests of the quick subset."""
    if is_quick(item.path):
        item.add_marker("quick")

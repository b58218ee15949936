"""What every test finds as the one before it did."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """Commands that run in this process set how much is logged, for all tests behind them."""
    before = logging.root.level
    yield
    logging.root.setLevel(before)

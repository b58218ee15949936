"""What a tracker takes down, whichever package it writes with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

RunState = Literal["finished", "failed", "killed"]


class Tracker(Protocol):
    """One run in one tracking package."""

    @property
    def where(self) -> str:
        """Where the run can be looked at, in words."""

    def parameters(self, values: Mapping[str, str]) -> None:
        """Note what the run depends on."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Note finite numbers of a step."""

    def candidate(self, number: int, values: Mapping[str, str], measures: Mapping[str, float]) -> None:
        """Note one of many things that the run compares.

        Args:
            number: its position among them.
            values: what it is; `name`, and `error` where it could not be measured.
            measures: finite numbers.
        """

    def text(self, name: str, markdown: str) -> None:
        """Keep a text."""

    def artefact(self, path: Path) -> None:
        """Keep a copy of a file, or its name where the package keeps none."""

    def close(self, state: RunState) -> None:
        """End the run."""

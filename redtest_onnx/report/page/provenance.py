"""Where the figures of a page come from: command, versions, date, files."""

from __future__ import annotations

import hashlib
import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from redtest_onnx.graph.model import Model
from redtest_onnx.similarity.analyze import AnalysisSettings

Facts = tuple[tuple[str, str], ...]
_PACKAGES = ("redtest-onnx", "onnxruntime", "onnxruntime-gpu", "onnx", "numpy")


@dataclass(frozen=True)
class Provenance:
    """How a page came about.

    Attributes:
        command: the command line as it was given; empty for a page made by a program.
        date: day and time with its zone.
        versions: of this tool, of what ran the model, of Python and the machine.
    """

    command: str
    date: str
    versions: str

    @classmethod
    def now(cls, arguments: Sequence[str] | None = None) -> Provenance:
        """Of a command that runs now.

        Args:
            arguments: what followed the name of the program; None for a program that is not ours.
        """
        found = []
        for name in _PACKAGES:
            try:
                found.append(f"{name} {version(name)}")
            except PackageNotFoundError:
                continue
        found.append(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
        return cls(
            "" if arguments is None else shlex.join(["redtest-onnx", *arguments]),
            datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            ", ".join(found),
        )

    @property
    def facts(self) -> Facts:
        """As lines of a page."""
        command = (("Command", self.command),) if self.command else ()
        return (*command, ("Date", self.date), ("Versions", self.versions))


def model_facts(model: Model, name: str = "Model") -> Facts:
    """The file as it was given, and its digest."""
    return ((name, str(model.path) if model.path else model.label), (f"{name}: SHA-256", model.sha256))


def file_facts(name: str, path: Path) -> Facts:
    """A file as it was given, and its digest."""
    with path.open("rb") as file:
        return ((name, str(path)), (f"{name}: SHA-256", hashlib.file_digest(file, "sha256").hexdigest()))


def settings_fact(settings: AnalysisSettings) -> tuple[str, str]:
    """How similarity was measured."""
    return (
        "Similarity",
        f"{settings.kernel} CKA, estimator {settings.estimator}, pooling {settings.pooling}, "
        f"seed {settings.seed}",
    )


def output_fact(output: Path) -> tuple[str, str]:
    """What was written."""
    return ("Written to", str(output))

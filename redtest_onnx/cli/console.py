"""What people see: tables on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from redtest_onnx.cli.progress import LogLines, bars
from redtest_onnx.data.dataset import Dataset
from redtest_onnx.similarity.analyze import Progress as Report

_PLAIN_WIDTH = 160  # tables in files and pipes are not folded to a terminal's width


class Screen:
    """Results and progress of one command.

    Args:
        quiet: show nothing but errors.
        json_on_stdout: stdout belongs to the JSON document.
    """

    def __init__(self, *, quiet: bool, json_on_stdout: bool) -> None:
        self._out = Console(quiet=quiet or json_on_stdout, highlight=False)
        if not self._out.is_terminal:
            self._out = Console(quiet=quiet or json_on_stdout, highlight=False, width=_PLAIN_WIDTH)
        self._err = Console(stderr=True, quiet=quiet, highlight=False)

    def show(self, *what: RenderableType) -> None:
        """Print a result; text as it is, since names of tensors may look like markup."""
        for item in () if self._out.quiet else what:
            self._out.print(item, markup=False)

    def note(self, text: str) -> None:
        """Print a remark beside the results."""
        self._err.print(text, markup=False, soft_wrap=True)

    def warn_synthetic(self, data: Dataset) -> None:
        """Say loudly that nothing real was measured."""
        if data.synthetic:
            self._err.print(
                "[bold yellow]Made-up inputs:[/] no --data was given. Similarities on noise say little about "
                "real inputs; give some hundred real samples before you act on this.",
                soft_wrap=True,
            )

    @contextmanager
    def progress(self) -> Iterator[Report]:
        """A bar per stage on a terminal, lines with times elsewhere."""
        shown = bars(self._err) if self._err.is_terminal else LogLines(self.note).running()
        with shown as report:
            yield report


def epoch_reporter(screen: Screen, log: Path | None = None) -> Callable[[dict[str, Any]], None]:
    """Show a line per epoch of training, and append its record to a log of JSON lines."""

    def report(record: dict[str, Any]) -> None:
        accuracy = record["validation_accuracy"]
        right = "" if accuracy is None else f", accuracy {accuracy:.2%}"
        screen.note(
            f"epoch {record['epoch']}: loss {record['train_loss']:.4f}, "
            f"validation loss {record['validation_loss']:.4f}{right}"
        )
        if log is not None:
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    return report

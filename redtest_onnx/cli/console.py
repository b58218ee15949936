"""What people see: tables on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.text import Text

from redtest_onnx.cli.progress import LogLines, bars
from redtest_onnx.data.dataset import Dataset
from redtest_onnx.report.table import Table
from redtest_onnx.report.table_formats import TableFormat, markdown_text, render_table, terminal_table
from redtest_onnx.text import plain, plain_lines

if TYPE_CHECKING:
    from redtest_onnx.similarity.analyze import Progress as Report

_PLAIN_WIDTH = 10_000  # what goes to files and pipes is not folded to a terminal's width


@dataclass(frozen=True)
class PlainText:
    """Something to print whose every piece of text is made plain, whoever wrote it.

    Attributes:
        what: the thing.
    """

    what: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What it consists of."""
        for piece in console.render(self.what, options):
            yield piece if piece.control else Segment(plain_lines(piece.text), piece.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """How wide it is."""
        return Measurement.get(console, options, self.what)


class LineFormatter(logging.Formatter):
    """Lines of the log, one a record; what it holds is made plain."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, followed by the traceback of a bug."""
        return plain_lines(super().format(record)) if record.exc_info else plain(super().format(record))


class OncePerCommand(logging.Filter):
    """Lets a message pass once: what holds for several models or sets of samples is said for the first."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[tuple[int, str]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it was not said yet, at this level."""
        message = record.levelno, record.getMessage()
        if message in self._said:
            return False
        self._said.add(message)
        return True


class Screen:
    """Results and progress of one command.

    Args:
        quiet: show nothing but errors.
        json_on_stdout: stdout belongs to the JSON document.
        form: what tables are printed as; with another format than "table" they alone go to stdout.
        summarised: with "markdown", stdout belongs to a summary, and tables are part of it.
    """

    def __init__(
        self, *, quiet: bool, json_on_stdout: bool, form: TableFormat = "table", summarised: bool = False
    ) -> None:
        self.form: TableFormat = form
        self._json_on_stdout = json_on_stdout
        silent = json_on_stdout or (quiet and form == "table") or (summarised and form == "markdown")
        # Names of tensors may look like markup, and what is no name is styled otherwise.
        self._out = Console(quiet=silent, highlight=False, markup=False, emoji=False)
        if not self._out.is_terminal:
            self._out.width = _PLAIN_WIDTH
        self._err = Console(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False)

    def show(self, *what: RenderableType | Table) -> None:
        """Print a result: a table, a line of text, or something made of such lines."""
        for item in () if self._out.quiet else what:
            if isinstance(item, Table):
                self._table(item)
            elif self.form == "table":
                self._out.print(plain(item) if isinstance(item, str) else PlainText(item))

    def explain(self, text: str) -> None:
        """Say why there is no result, in every format: beside tables for programs on stderr."""
        if self.form == "table":
            self.show(text)
        elif self.form == "markdown" and not self._json_on_stdout:
            self._out.file.write(f"{markdown_text(text)}\n")
        else:
            self.note(text)

    def detail(self, table: Table) -> None:
        """Print a table beside the main one: not in formats where one table is the whole output."""
        if self.form == "table":
            self.show(table)

    def _table(self, table: Table) -> None:
        if self.form == "table":
            width = self._out.width if self._out.is_terminal else None
            self._out.print(PlainText(terminal_table(table, width)))
        else:
            self._out.file.write(render_table(table, self.form))

    def note(self, text: str) -> None:
        """Print a remark beside the results."""
        self._err.print(plain_lines(text), soft_wrap=True)

    def warn_synthetic(self, data: Dataset) -> None:
        """Say loudly that nothing real was measured."""
        if data.synthetic:
            self._err.print(
                Text("Synthetic (random) inputs:", style="bold yellow").append(
                    " no --data was given. What is measured on noise says little about "
                    "real inputs; give some hundred real samples before you act on this.",
                    style="not bold default",
                ),
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

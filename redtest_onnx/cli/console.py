"""What people see: tables on stdout, progress and remarks on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from redtest_onnx.analysis import Progress as Report
from redtest_onnx.runtime.data import Dataset

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
        """A bar on a terminal, a line per stage elsewhere."""
        if not self._err.is_terminal:
            seen: set[str] = set()

            def line(done: int, total: int, what: str) -> None:
                if what not in seen:
                    seen.add(what)
                    self.note(f"{what} ...")

            yield line
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._err, transient=True) as bars:
            task = bars.add_task("starting", total=None)
            yield lambda done, total, what: bars.update(task, completed=done, total=total, description=what)

"""Progress of long commands: a bar per stage on a terminal, lines with times in a log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from redtest_onnx.similarity.analyze import Progress as Report

_EVERY = 30.0  # seconds between two lines of one stage in a log
_WORTH_SAYING = 1.0  # seconds from which on the time a stage took is told


@contextmanager
def bars(console: Console) -> Iterator[Report]:
    """A bar per stage, with its own count, the time it takes and an estimate; stages that are over stay."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        stages: dict[str, int] = {}

        def report(done: int, total: int, what: str) -> None:
            if what not in stages:
                for task in stages.values():
                    shown.stop_task(task)  # type: ignore[arg-type]
                stages[what] = shown.add_task(what, total=total)
            shown.update(stages[what], completed=done, total=total)  # type: ignore[arg-type]

        yield report


class LogLines:
    """A line when a stage begins, one when it is over with the time it took, and one every 30 s between.

    Args:
        write: takes a line.
        every: seconds between two lines of a stage.
        now: a clock, in seconds.
    """

    def __init__(
        self, write: Callable[[str], None], every: float = _EVERY, now: Callable[[], float] = monotonic
    ) -> None:
        self._write, self._every, self._now = write, every, now
        self._what: str | None = None
        self._done = self._total = 0
        self._began = self._said = self._reached = 0.0
        self._over = threading.Event()
        self._lock = threading.Lock()

    def report(self, done: int, total: int, what: str) -> None:
        """Take in how far a stage is."""
        with self._lock:
            if what != self._what:
                self._end()
                self._what, self._done, self._began = what, 0, self._now()
                self._said = self._reached = self._began
                self._write(f"{what} ...")
            if done != self._done:
                self._reached = self._now()
            self._done, self._total = done, total

    def tick(self) -> None:
        """Say how far the stage is, if it is time to."""
        with self._lock:
            now = self._now()
            if self._what is None or now - self._said < self._every:
                return
            self._said = now
            took = _words(now - self._began)
            self._write(f"{self._what}: {self._done} of {self._total}, {took}{self._left(now)}")

    def _left(self, now: float) -> str:
        if not 0 < self._done < self._total:
            return ""
        # A step that is under way takes as long as those before it, unless it has lasted longer already.
        usual, lasted = (self._reached - self._began) / self._done, (now - self._began) / (self._done + 1)
        step = max(usual, lasted)
        left = step * (self._total - self._done - 1) + max(step - (now - self._reached), 0.0)
        return f", about {_words(left)} left" if left >= 1 else ""

    def _end(self) -> None:
        took = self._now() - self._began
        if self._what is not None and took >= _WORTH_SAYING:
            self._write(f"{self._what}: {_words(took)}")

    @contextmanager
    def running(self) -> Iterator[Report]:
        """Report while the block runs; a thread looks at the clock, since one step may take long."""
        watch = threading.Thread(target=self._watch, daemon=True, name="progress")
        watch.start()
        try:
            yield self.report
        finally:
            self._over.set()
            watch.join()
            with self._lock:
                self._end()
                self._what = None

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self._every / 4)):
            self.tick()


def _words(seconds: float) -> str:
    """A time as people say it: 45 s, 3 min 20 s, 1 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"

"""What an engine does: take work, hand back what comes out, in whatever order it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from redtest_onnx.errors import RedtestError

Result = TypeVar("Result")
Work = Callable[[str], Result]
"""Takes the name of a piece of work; must be picklable, like its result."""


@dataclass(frozen=True)
class JobResult(Generic[Result]):
    """A piece of work that came to its end.

    Attributes:
        name: which one.
        value: what came out; None if it failed.
        error: why it failed, in words for the user; None if it did not.
    """

    name: str
    value: Result | None = None
    error: str | None = None


class Engine(Protocol[Result]):
    """Runs pieces of work; a context, which frees workers at its end."""

    @property
    def slots(self) -> int:
        """How many pieces run at a time; more than that need not be submitted."""

    def submit(self, name: str) -> None:
        """Begin a piece of work, or queue it."""

    def wait(self) -> JobResult[Result]:
        """The next piece that has come to its end. Call only with work submitted."""

    def __enter__(self) -> Self:
        """Start workers."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop workers; what has not finished is dropped."""


def attempt(work: Work[Result], name: str) -> JobResult[Result]:
    """Run one piece. What the user can be told about is a result like others; a bug is raised."""
    try:
        return JobResult(name, work(name))
    except RedtestError as error:
        elsewhere = error.where is not None and error.where != name
        return JobResult(name, error=f"{error.where}: {error.what}" if elsewhere else error.what)

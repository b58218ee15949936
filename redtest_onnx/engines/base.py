"""What an engine does: take work, hand back what comes out, in whatever order it does."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from redtest_onnx.errors import RedtestError

Piece = TypeVar("Piece", bound=Hashable)
"""A piece of work, such as the path of a model. Its text is what errors would name it by."""
Result = TypeVar("Result")
Work = Callable[[Piece], Result]
"""Does a piece of work; must be picklable, like pieces and results."""


@dataclass(frozen=True)
class JobResult(Generic[Piece, Result]):
    """A piece of work that came to its end.

    Attributes:
        piece: which one.
        value: what came out; None if it failed.
        error: why it failed, in words for the user; None if it did not.
    """

    piece: Piece
    value: Result | None = None
    error: str | None = None


class Engine(Protocol[Piece, Result]):
    """Runs pieces of work; a context, which frees workers at its end."""

    @property
    def slots(self) -> int:
        """How many pieces run at a time; more than that need not be submitted."""

    def submit(self, piece: Piece) -> None:
        """Begin a piece of work, or queue it."""

    def wait(self) -> JobResult[Piece, Result]:
        """The next piece that has come to its end. Call only with work submitted."""

    def __enter__(self) -> Self:
        """Start workers."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop workers; what has not finished is dropped."""


def attempt(work: Work[Piece, Result], piece: Piece) -> JobResult[Piece, Result]:
    """Run one piece. What the user can be told about is a result like others; a bug is raised."""
    try:
        return JobResult(piece, work(piece))
    except RedtestError as error:
        elsewhere = error.where is not None and error.where != str(piece)
        return JobResult(piece, error=f"{error.where}: {error.what}" if elsewhere else error.what)

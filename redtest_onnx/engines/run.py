"""Choose an engine, and run a list of work on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from redtest_onnx.checks import Positive, check_settings
from redtest_onnx.engines.base import Engine, JobResult, Piece, Result, Work
from redtest_onnx.engines.ray import RayEngine
from redtest_onnx.errors import InputError

EngineName = Literal["local", "ray"]


@dataclass(frozen=True)
class EngineOptions:
    """Where work runs.

    Attributes:
        engine: "local", or "ray".
        workers: local processes; 1 stays in this one.
        address: of a Ray cluster; None starts one on this machine.
    """

    engine: EngineName = "local"
    workers: Positive = 1
    address: str | None = None

    def __post_init__(self) -> None:
        check_settings(self)

    def open(self, work: Work[Piece, Result]) -> Engine[Piece, Result]:
        """The engine for a kind of work.

        Raises:
            InputError: Ray is not installed, or an address is given for local work.
        """
        if self.engine == "ray":
            return RayEngine(work, self.address)
        if self.address is not None:
            raise InputError("@address is that of a Ray cluster", hint="@engine=ray uses it")
        # Here, since most commands need no pool of processes, which is slow to import.
        from redtest_onnx.engines.local import Inline, Processes

        return Processes(work, self.workers) if self.workers > 1 else Inline(work)


def run_all(
    work: Work[Piece, Result], pieces: Sequence[Piece], options: EngineOptions
) -> Iterator[JobResult[Piece, Result]]:
    """Do all of a list of work; yields what has ended as it does."""
    with options.open(work) as engine:
        yield from run_on(engine, pieces)


def run_on(engine: Engine[Piece, Result], pieces: Sequence[Piece]) -> Iterator[JobResult[Piece, Result]]:
    """Do a list of work on an engine that is open; yields what has ended as it does."""
    running = 0
    for piece in pieces:
        engine.submit(piece)
        running += 1
        if running >= engine.slots:
            yield engine.wait()
            running -= 1
    for _ in range(running):
        yield engine.wait()

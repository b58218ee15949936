"""The engine that works on a Ray cluster, one that is there or one that Ray starts on this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Generic, Self

from redtest_onnx.engines.base import JobResult, Piece, Result, Work, attempt
from redtest_onnx.engines.isolation import keep_working_folder_out
from redtest_onnx.errors import InputError

_ATTEMPTS = 3
_PATIENCE = 10.0  # seconds


class RayEngine(Generic[Piece, Result]):
    """One Ray task a piece, one core each. Ray itself runs a task again whose worker or node died.

    Args:
        work: what to do with each piece; goes to the workers once.
        address: of the cluster's head, "auto" for the one this machine belongs to; None starts one here.
    """

    def __init__(self, work: Work[Piece, Result], address: str | None) -> None:
        self._ray = _ray()
        self._work, self._address, self._folder = work, address, os.getcwd()
        self._running: dict[Any, Piece] = {}
        self.slots = 1

    def submit(self, piece: Piece) -> None:
        """Begin a piece, or queue it."""
        self._running[self._task.remote(self._folder, self._shared, piece)] = piece

    def wait(self) -> JobResult[Piece, Result]:
        """The next piece that has ended."""
        (reference,), _ = self._ray.wait(list(self._running), num_returns=1)
        piece = self._running.pop(reference)
        deaths = self._ray.exceptions
        try:
            finished: JobResult[Piece, Result] = self._ray.get(reference)
        except (deaths.WorkerCrashedError, deaths.NodeDiedError, deaths.OutOfMemoryError) as error:
            text = f"its worker died {_ATTEMPTS} times ({type(error).__name__})"
            return JobResult(piece, error=text)
        return finished

    def __enter__(self) -> Self:
        self._owner = not self._ray.is_initialized()
        if self._owner:
            self._connect()
        self._shared = self._ray.put(self._work)
        self._task = self._ray.remote(num_cpus=1, max_retries=_ATTEMPTS - 1)(_attempt_in)
        self.slots = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reference in self._running:
            self._ray.cancel(reference)
        if self._owner:
            self._ray.shutdown()

    def _connect(self) -> None:
        try:
            _reach(self._address)
            with _elsewhere():
                self._ray.init(self._address, log_to_driver=False, logging_level="warning")
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"no Ray cluster at {self._address or 'this machine'} ({error})",
                hint="start one with `ray start --head` and give @address, or leave @address out",
            ) from error


def _attempt_in(folder: str, work: Work[Piece, Result], piece: Piece) -> JobResult[Piece, Result]:
    """Run one piece in the driver's working folder, which paths may be relative to."""
    with suppress(OSError):  # a worker on another machine may have no such folder
        os.chdir(folder)
    return attempt(work, piece)


@contextmanager
def _elsewhere() -> Iterator[None]:
    """Away from the working folder, which Ray puts first on the module path of its workers."""
    keep_working_folder_out()
    folder = os.getcwd()
    os.chdir(os.sep)
    try:
        yield
    finally:
        os.chdir(folder)


def _reach(address: str | None) -> None:
    """Fail at once where no server listens; Ray itself tries for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError("@engine=ray needs Ray", hint='pip install "redtest-onnx[nas]"') from error
    return ray

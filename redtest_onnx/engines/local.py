"""Engines that work on this machine: in this process, or in a pool of processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import TracebackType
from typing import Generic, Self

from redtest_onnx.engines.base import JobResult, Piece, Result, Work, attempt
from redtest_onnx.engines.isolation import keep_working_folder_out

_ATTEMPTS = 3


class Inline(Generic[Piece, Result]):
    """Does the work when it is waited for, in this process."""

    slots = 1

    def __init__(self, work: Work[Piece, Result]) -> None:
        self._work = work
        self._queue: deque[Piece] = deque()

    def submit(self, piece: Piece) -> None:
        """Queue a piece."""
        self._queue.append(piece)

    def wait(self) -> JobResult[Piece, Result]:
        """Do the next piece."""
        return attempt(self._work, self._queue.popleft())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.clear()


class Processes(Generic[Piece, Result]):
    """A pool of local processes.

    Python gives up a whole pool when one of its processes dies, so a new one takes over what was under way;
    a piece that was under way each time fails at the third.

    Args:
        work: what to do with each piece.
        workers: number of processes.
    """

    def __init__(self, work: Work[Piece, Result], workers: int) -> None:
        self.slots = workers
        self._work = work
        self._futures: dict[Future[JobResult[Piece, Result]], Piece] = {}
        self._lost: Counter[Piece] = Counter()
        self._failed: deque[JobResult[Piece, Result]] = deque()

    def submit(self, piece: Piece) -> None:
        """Begin a piece, or queue it."""
        try:
            with _uninterrupted_starts():
                future = self._pool.submit(attempt, self._work, piece)
        except BrokenProcessPool:
            self._recover([piece])
        else:
            self._futures[future] = piece

    def wait(self) -> JobResult[Piece, Result]:
        """The next piece that has ended."""
        while not self._failed:
            done, _ = wait(self._futures, return_when=FIRST_COMPLETED)
            future = done.pop()
            piece = self._futures.pop(future)
            if not isinstance(future.exception(), BrokenProcessPool):
                return future.result()
            self._recover([piece])
        return self._failed.popleft()

    def __enter__(self) -> Self:
        self._pool = self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=error is None, cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        # Threads of PyTorch and ONNX Runtime do not survive a fork.
        keep_working_folder_out()
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.slots, context, initializer=_end_quietly)

    def _recover(self, lost: list[Piece]) -> None:
        """A new pool for what the broken one had not finished."""
        finished = {f: n for f, n in self._futures.items() if f.done() and f.exception() is None}
        lost += [piece for future, piece in self._futures.items() if future not in finished]
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool, self._futures = self._start(), finished
        self._lost.update(lost)
        for piece in lost:
            if self._lost[piece] < _ATTEMPTS:
                self.submit(piece)
            else:
                text = f"its process died {_ATTEMPTS} times, out of memory perhaps"
                self._failed.append(JobResult(piece, error=text))


@contextmanager
def _uninterrupted_starts() -> Iterator[None]:
    """Let processes that are started in the block wait with Ctrl-C until `_end_quietly`.

    A terminal sends it to all processes, and one that imports modules answers with a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_quietly() -> None:
    """Let this process end at Ctrl-C without a word, which is the driver's, and when the driver dies."""
    # A job in the background ignores it.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _end_with_parent()


def _end_with_parent() -> None:
    """Let this process end when the driver dies; a worker of a pool would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

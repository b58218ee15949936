"""Threads: one pool at a time, and never more of them than the user allows.

Linear algebra stays on the calling thread everywhere. Its own pool spins between products, which costs many
times the work as soon as another program wants the cores; and the matrices of one layer are small. What is
independent, such as blocks of samples, is spread over threads here instead: NumPy releases the interpreter
lock inside products.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any, Generic, TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def one_blas_thread(*, solvers: bool = False) -> Iterator[None]:
    """Keep linear algebra on the calling thread; also a decorator of functions.

    Args:
        solvers: SciPy will be used, whose own BLAS must be there to be limited.
    """
    if solvers:
        import scipy.linalg  # noqa: F401
    _ONE.enter()
    try:
        yield
    finally:
        _ONE.leave()


class _OneThread:
    """Pools of linear algebra held at one thread while anyone asks for that, in whatever thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._loaded: dict[bool, list[Any]] = {}
        self._before: dict[str, tuple[Any, int]] = {}

    def enter(self) -> None:
        """Limit the pools that are loaded, looked up again once SciPy has brought its own."""
        with_scipy = "scipy.linalg" in sys.modules
        with self._lock:
            self._users += 1
            if with_scipy not in self._loaded:
                pools = ThreadpoolController().select(user_api="blas")
                self._loaded[with_scipy] = pools.lib_controllers
            for pool in self._loaded[with_scipy]:
                self._before.setdefault(pool.filepath, (pool, pool.num_threads))
                pool.set_num_threads(1)

    def leave(self) -> None:
        """Restore their threads with the last caller."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for pool, threads in self._before.values():
                    pool.set_num_threads(threads)
                self._before.clear()

    def after_fork(self) -> None:
        """The lock may have been taken by a thread that the child does not have."""
        self._lock = Lock()


_ONE = _OneThread()


def thread_count(threads: int) -> int:
    """How many threads `RunOptions.threads` allows: itself, or for 0 the cores this process may use."""
    if threads:
        return threads
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


class Beside(Generic[Result]):
    """Work that goes on in threads beside the caller, whose results are taken in the order of the calls.

    On one thread everything is done at once.

    Args:
        threads: see `RunOptions.threads`; no more calls wait than there are.
    """

    def __init__(self, threads: int) -> None:
        self._count = thread_count(threads)
        self._waiting: deque[tuple[Future[Result], Callable[[Result], None]]] = deque()

    def do(self, work: Callable[[], Result], take: Callable[[Result], None]) -> None:
        """Call `work`, now or later, and hand what it gives to `take` on the caller's thread.

        Args:
            work: what releases the interpreter lock for most of its time.
            take: called once all earlier results were taken, at the latest by `finish`.
        """
        if self._count == 1:
            take(work())
            return
        if len(self._waiting) == self._count:
            self._take_first()
        self._waiting.append((_workers(self._count).submit(work), take))

    def finish(self) -> None:
        """Wait for all work."""
        while self._waiting:
            self._take_first()

    def _take_first(self) -> None:
        future, take = self._waiting.popleft()
        take(future.result())


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Results of a function for each item, in order, computed on so many threads.

    No more items are taken than threads work on, so that memory does not grow with their number. Who stops
    taking results has started a few too many.

    Args:
        function: what releases the interpreter lock for most of its time, and does not come back here.
        items: its arguments.
        threads: see `RunOptions.threads`.
    """
    count = thread_count(threads)
    if count == 1:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            if len(waiting) == count:
                yield waiting.popleft().result()
            waiting.append(_workers(count).submit(function, item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@cache
def _workers(count: int) -> ThreadPoolExecutor:
    """So many threads, which are idle between calls: to start one takes longer than much of what they do."""
    return ThreadPoolExecutor(count, thread_name_prefix="redtest-onnx")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ONE.after_fork)
    os.register_at_fork(after_in_child=_workers.cache_clear)  # a child has none of its parent's threads

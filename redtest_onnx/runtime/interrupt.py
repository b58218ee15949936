"""Runs of models that can be stopped from outside, and what must not be stopped in the middle."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_running: set[Any] = set()
_lock = threading.Lock()


@contextmanager
def stoppable(run_options: Any) -> Iterator[Any]:
    """Let a run with these `onnxruntime.RunOptions` be stopped by `stop_runs` while it lasts.

    ONNX Runtime looks at their flag between operators.
    """
    with _lock:
        _running.add(run_options)
    try:
        yield run_options
    finally:
        with _lock:
            _running.discard(run_options)


def stop_runs() -> None:
    """Stop all runs that are under way: they fail at their next operator."""
    with _lock:
        for run_options in _running:
            run_options.terminate = True


@contextmanager
def delayed_interrupts() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block ends.

    PyTorch runs Python code from within C++ while it is imported, and what is raised there ends the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled elsewhere
        return
    seen: list[tuple[int, FrameType | None]] = []
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in found.items() if callable(handler)}
    for number in before:
        signal.signal(number, lambda number, frame: seen.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for first, frame in seen[:1]:
            before[signal.Signals(first)](first, frame)

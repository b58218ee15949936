"""Runs of models that can be stopped from outside: ONNX Runtime looks at a flag between operators."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_running: set[Any] = set()
_lock = threading.Lock()


@contextmanager
def stoppable(run_options: Any) -> Iterator[Any]:
    """Let a run with these `onnxruntime.RunOptions` be stopped by `stop_runs` while it lasts."""
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

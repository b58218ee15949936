"""Ctrl-C is answered at once, also while a library computes and Python can't look at signals."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_INTERRUPTED = 130


def watch_for_interrupts() -> None:
    """Stop running models at the first Ctrl-C or SIGTERM, so that Python can clean up; exit at the second.

    Python handles signals between two of its own instructions, and a model may run for minutes within one.
    What the system tells about signals is therefore read by a thread.
    """
    source, sink = socket.socketpair()
    sink.setblocking(False)
    signal.set_wakeup_fd(sink.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(source, sink), daemon=True, name="interrupts").start()


def _watch(source: socket.socket, sink: socket.socket) -> None:
    seen = 0
    while True:
        for number in source.recv(16):
            if number not in _SIGNALS:
                continue
            seen += 1
            if seen > 1:
                os._exit(_INTERRUPTED)
            _say("\ninterrupted: stopping; once more stops at once\n")
            runs = sys.modules.get("redtest_onnx.runtime.interrupt")
            if runs is not None:  # what was never imported runs nothing
                runs.stop_runs()


def _say(text: str) -> None:
    try:
        os.write(2, text.encode())
    except OSError:
        return  # nothing reads it

"""Calls of the command line, each in a forked process of its own with limits on time and memory."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS = 10
MEBIBYTES = 2048
_WALL = 120


@dataclass(frozen=True)
class Answer:
    """How one call ended.

    Attributes:
        code: its exit code, or the signal that ended it, such as "SIGSEGV".
        text: what it printed.
        seconds: of processor time.
        mebibytes: the largest resident memory, that of the imported packages included.
    """

    code: int | str
    text: str
    seconds: float
    mebibytes: int

    @property
    def fault(self) -> str | None:
        """What is wrong with it; None if nothing is."""
        if self.code not in (0, 1, 2):
            return f"exit code {self.code}"
        if "Traceback" in self.text:
            return "a traceback"
        if self.seconds > SECONDS:
            return f"{self.seconds:.1f} s of processor time"
        return f"{self.mebibytes} MiB" if self.mebibytes > MEBIBYTES else None


def prepare(*, torch: bool) -> None:
    """Import what commands import, once for all calls."""
    import importlib

    from redtest_onnx.cli.main import COMMANDS

    for name in COMMANDS:
        importlib.import_module(f"redtest_onnx.cli.{name}")
    modules = ["onnxruntime", "onnx_graphsurgeon", "PIL.Image", "redtest_onnx.pruning.prune"]
    modules += ["torch", "torch._dynamo", "redtest_onnx.training.finetune"] if torch else []
    for name in modules:
        importlib.import_module(name)
    from redtest_onnx.runtime import latency

    for name in ("_FEWEST", "_ENOUGH", "_MOST"):
        setattr(latency, name, 1)  # latency of broken models has no meaning


def call(arguments: Sequence[str], folder: Path, before: Callable[[], None] | None = None) -> Answer:
    """One call, with `folder` as its working folder; `before` is called in its process first."""
    with tempfile.TemporaryFile() as out:
        child = os.fork()
        if child == 0:
            _run(arguments, folder, out.fileno(), before)
        _, status, usage = os.wait4(child, 0)
        out.seek(0)
        text = out.read(1 << 20).decode("utf-8", "replace")
    code = os.waitstatus_to_exitcode(status)
    ended: int | str = code if code >= 0 else signal.Signals(-code).name
    return Answer(ended, text, usage.ru_utime + usage.ru_stime, usage.ru_maxrss >> 10)


def _run(arguments: Sequence[str], folder: Path, out: int, before: Callable[[], None] | None) -> None:
    """In the child: never returns."""
    code = 99
    try:
        os.dup2(out, 1)
        os.dup2(out, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (2 * SECONDS, 2 * SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (3 * MEBIBYTES << 20), resource.RLIM_INFINITY))
        signal.alarm(_WALL)
        os.chdir(folder)
        from redtest_onnx.cli.main import run

        if before is not None:
            before()
        code = run(list(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)

"""Runs pytest once per line of standard input, each time in a child of a process with the libraries loaded.

For `tools/mutation.py`: importing them takes longer than most of the tests that kill a mutant. A line is a
JSON object with the `arguments` of pytest, the `environment` and the CPU `seconds` at most; the answer is
pytest's exit code, negative if a signal ended it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from importlib import import_module
from typing import Any

LIBRARIES = (
    "hypothesis",
    "networkx",
    "numpy",
    "onnx",
    "onnx_graphsurgeon",
    "onnxruntime",
    "pydantic",
    "pytest",
)
LONGEST_SECONDS = 3600


def main() -> None:
    """Load the libraries, never the package, then answer until the input ends."""
    for name in (*LIBRARIES, "scipy.linalg"):
        import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 3
            try:
                code = run(json.loads(line))
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def run(job: dict[str, Any]) -> int:
    """Run pytest in this process, without a word."""
    import pytest

    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(quiet, descriptor)
    os.environ.update(job["environment"])
    resource.setrlimit(resource.RLIMIT_CPU, (job["seconds"], job["seconds"]))
    signal.alarm(LONGEST_SECONDS)
    return int(pytest.main(job["arguments"]))


if __name__ == "__main__":
    main()

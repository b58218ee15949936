"""Runs a model in a process of its own and prints how much that process's memory grows. Linux only.

python -m redtest_onnx.runtime.watched_run MODEL INPUTS.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

from redtest_onnx.data.dataset import Feeds
from redtest_onnx.runtime.feeds_file import read_feeds
from redtest_onnx.runtime.library import onnxruntime


def run_and_watch(path: str, feeds: Feeds) -> int:
    """Growth of this process's resident memory, in bytes, during one run; Linux only."""
    ort = onnxruntime()
    settings = ort.SessionOptions()
    settings.enable_cpu_mem_arena = settings.enable_mem_pattern = False
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 4
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    session.run(None, dict(feeds))
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _status("VmRSS")
    session.run(None, dict(feeds))
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    print(run_and_watch(sys.argv[1], read_feeds(Path(sys.argv[2]))))

"""What ONNX Runtime really takes for activations, measured from outside in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from redtest_onnx.graph.cost import peak_activation_bytes
from redtest_onnx.graph.files import save
from redtest_onnx.graph.signature import batch_axes
from redtest_onnx.runtime.session import onnxruntime
from redtest_onnx.runtime.workbench import Workbench

_WANTED = 48 << 20  # bytes of activations: so much stands out from what else a process does
_SECONDS = 120

# Freed memory goes back to the system at once, so that resident memory tells what is held.
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
_CHILD = """
import sys
import numpy as np
from redtest_onnx.runtime.memory import run_and_watch
print(run_and_watch(sys.argv[1], dict(np.load(sys.argv[2]))))
"""


def measured_peak_activations(bench: Workbench) -> float | None:
    """Bytes that ONNX Runtime holds for one sample at its peak, inputs included.

    The model runs on a batch that is large enough to stand out, with the basic optimisations, one thread and
    no arena; resident memory above that before the run, divided by the samples, is the answer.

    Args:
        bench: a model whose batch size is open; its first sample is repeated.

    Returns:
        None where that can't be measured: outside Linux, for a fixed batch, if the run fails.
    """
    model = bench.model
    if not sys.platform.startswith("linux") or bench.fixed_batch is not None:
        return None
    expected = peak_activation_bytes(bench.index, bench.shapes)
    samples = max(1, _WANTED // max(expected or _WANTED, 1))
    axes = batch_axes(model)
    feeds = {
        name: value if axes[name] is None else np.repeat(value, samples, axis=axes[name])
        for name, value in bench.sample.items()
    }
    with tempfile.TemporaryDirectory(prefix="redtest-onnx-") as folder:
        path, inputs = Path(folder) / "model.onnx", Path(folder) / "inputs.npz"
        source = model.path or save(model, path).path
        np.savez(inputs, allow_pickle=False, **feeds)
        result = subprocess.run(
            [sys.executable, "-c", _CHILD, str(source), str(inputs)],
            capture_output=True,
            text=True,
            env={**os.environ, **_ENVIRONMENT},
            timeout=_SECONDS,
            check=False,
        )
    if result.returncode != 0:
        return None
    return (int(result.stdout) + sum(value.nbytes for value in feeds.values())) / samples


def run_and_watch(path: str, feeds: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]) -> int:
    """Growth of this process's resident memory, in bytes, during one run; Linux only."""
    ort = onnxruntime()
    settings = ort.SessionOptions()
    settings.enable_cpu_mem_arena = settings.enable_mem_pattern = False
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 4
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    session.run(None, feeds)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _status("VmRSS")
    session.run(None, feeds)
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

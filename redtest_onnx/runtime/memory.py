"""What ONNX Runtime really takes for activations, measured from outside in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from redtest_onnx.engines.isolation import isolated_command
from redtest_onnx.graph.files import save
from redtest_onnx.graph.memory_plan import peak_activation_bytes
from redtest_onnx.graph.scratch import scratch_folder
from redtest_onnx.graph.signature import batch_axes
from redtest_onnx.runtime.feeds_file import write_feeds
from redtest_onnx.runtime.workbench import Workbench

_WANTED = 48 << 20  # bytes of activations: so much stands out from what else a process does
_SECONDS = 120

# Freed memory goes back to the system at once, so that resident memory tells what is held.
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


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
    with scratch_folder() as folder:
        path, inputs = folder / "model.onnx", folder / "inputs.npz"
        source = model.path or save(model, path).path or path
        write_feeds(inputs, feeds)
        try:
            result = subprocess.run(
                isolated_command("redtest_onnx.runtime.watched_run", str(source.resolve()), str(inputs)),
                capture_output=True,
                text=True,
                env={**os.environ, **_ENVIRONMENT},
                cwd=folder,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
    if result.returncode != 0:
        return None
    return (int(result.stdout) + sum(value.nbytes for value in feeds.values())) / samples

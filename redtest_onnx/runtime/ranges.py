"""The largest magnitude that each inner tensor reaches."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from redtest_onnx.arrays import Indices
from redtest_onnx.data.batching import batches
from redtest_onnx.graph.probe.constants import PREFIX
from redtest_onnx.graph.probe.taps import build_range_probe
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

_BATCH = 8


def largest_magnitudes(bench: Workbench, names: Iterable[str], indices: Indices) -> dict[str, float]:
    """Largest absolute value of floating-point tensors over some samples; NaN where one is not a number.

    Args:
        bench: the model and its samples.
        names: tensors of a floating-point type.
        indices: which of the samples.
    """
    wanted = list(dict.fromkeys(names))
    probe = build_range_probe(bench.model, wanted)
    session = Session(probe, bench.options, level="basic", early_release=True)
    found = dict.fromkeys(wanted, 0.0)
    fixed = bench.fixed_batch
    for chosen, _ in batches(indices, fixed or _BATCH, fixed=fixed is not None):
        values = session.run(bench.data.inputs(chosen))
        for name in wanted:
            found[name] = float(np.maximum(found[name], values[f"{PREFIX}{name}"]))
    return found

"""The largest magnitude that each inner tensor reaches."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from redtest_onnx.data.batching import Indices, batches
from redtest_onnx.data.dataset import Dataset
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.probe.reduction import PREFIX
from redtest_onnx.graph.probe.taps import build_range_probe
from redtest_onnx.graph.signature import fixed_batch
from redtest_onnx.runtime.session import RunOptions, Session

_BATCH = 8


def largest_magnitudes(
    model: Model, names: Iterable[str], data: Dataset, indices: Indices, options: RunOptions
) -> dict[str, float]:
    """Largest absolute value of floating-point tensors over some samples; NaN where one is not a number.

    Args:
        model: the model.
        names: tensors of a floating-point type.
        data: samples.
        indices: which of them.
        options: device and threads.
    """
    wanted = list(dict.fromkeys(names))
    session = Session(build_range_probe(model, wanted), options, level="basic", early_release=True)
    found = dict.fromkeys(wanted, 0.0)
    fixed = fixed_batch(model)
    for chosen, _ in batches(indices, fixed or _BATCH, fixed=fixed is not None):
        values = session.run(data.inputs(chosen))
        for name in wanted:
            found[name] = float(np.maximum(found[name], values[f"{PREFIX}{name}"]))
    return found

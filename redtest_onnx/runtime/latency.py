"""Measured latency of models, side by side in one run, on the untapped graph at full optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from redtest_onnx.graph.model import Model
from redtest_onnx.graph.signature import fixed_batch
from redtest_onnx.runtime.batching import first
from redtest_onnx.runtime.data import Dataset
from redtest_onnx.runtime.session import RunOptions, Session

_WARM_UP = 5
_TURN = 5  # runs in a row
_FEWEST, _MOST = 15, 400


@dataclass(frozen=True)
class Latency:
    """Percentiles of the time of one run, in milliseconds."""

    p50: float
    p90: float
    p99: float
    runs: int


def measure_latency(
    models: Sequence[Model], data: Dataset, options: RunOptions, *, seconds: float = 3.0
) -> list[Latency]:
    """Time models in turns on the same sample, so that other load on the machine hits all alike.

    Args:
        models: models with the same signature.
        data: the first sample (the first few, for a fixed batch) is what they run on.
        options: device and threads; one thread if they leave that open, since waking others up costs small
            models more than their work and makes timings jump.
        seconds: time to spend on all of them together, if that allows 15 runs each.
    """
    feeds = data.inputs(first(fixed_batch(models[0]) or 1, len(data)))
    options = replace(options, threads=options.threads or 1)
    sessions = [Session(model, options) for model in models]
    for session in sessions:
        for _ in range(_WARM_UP):
            session.run(feeds)
    times: list[list[float]] = [[] for _ in sessions]
    begin = perf_counter()
    while len(times[0]) < _FEWEST or (perf_counter() - begin < seconds and len(times[0]) < _MOST):
        for session, found in zip(sessions, times, strict=True):
            session.run(feeds)  # brings its weights back into the cache, as in steady use
            for _ in range(_TURN):
                start = perf_counter()
                session.run(feeds)
                found.append((perf_counter() - start) * 1e3)
    return [_latency(found) for found in times]


def _latency(times: list[float]) -> Latency:
    p50, p90, p99 = np.percentile(times, [50, 90, 99])
    return Latency(float(p50), float(p90), float(p99), len(times))

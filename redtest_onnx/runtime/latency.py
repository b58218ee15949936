"""Measured latency of models, side by side in one run, on the untapped graph at full optimisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import onnx

from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.graph.subgraph import segment
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

_WARM_UP = 5
_TURN = 5  # runs in a row
_FEWEST, _ENOUGH, _MOST = 15, 60, 400
_PATIENCE = 4  # times the seconds that may pass until there are enough
_REGION_SECONDS = 5.0


@dataclass(frozen=True)
class Latency:
    """Percentiles of the time of one run, in milliseconds."""

    p50: float
    p90: float
    p99: float
    runs: int


def measure_latency(benches: Sequence[Workbench], *, seconds: float = 3.0) -> list[Latency]:
    """Time models in turns on the same sample, so that other load on the machine hits all alike.

    With the options of their workbenches, but one thread if they leave that open, since waking others up
    costs small models more than their work and makes timings jump.

    Args:
        benches: models with the same signature; the first sample (the first few, for a fixed batch) of the
            first one is what they run on.
        seconds: time to spend on all of them together, if that allows 15 runs each.
    """
    feeds = benches[0].sample
    return _timed([(bench.session(threads=_threads(bench)), feeds) for bench in benches], seconds)


def measure_regions(bench: Workbench, regions: Sequence[tuple[str, str]]) -> list[float]:
    """Time parts of a model, each by itself on what it reads in a run of the first sample.

    Args:
        bench: the model; run as in `measure_latency`.
        regions: the tensor that enters and the one that leaves each part.

    Returns:
        The median of each part as a share of the whole model's.
    """
    model, feeds = bench.model, bench.sample
    options = replace(bench.options, threads=_threads(bench))
    entries = dict.fromkeys(entry for entry, _ in regions)
    known = {**feeds, **Session(expose(model, entries), options).run(feeds)}
    timed: list[tuple[Session, dict[str, Any]]] = [(bench.session(threads=options.threads), dict(feeds))]
    for entry, exit_ in regions:
        part = segment(model, [exit_], {entry: onnx.helper.np_dtype_to_tensor_dtype(known[entry].dtype)})
        timed.append((Session(part, options), {spec.name: known[spec.name] for spec in part.inputs}))
    whole, *parts = _timed(timed, seconds=_REGION_SECONDS)
    return [part.p50 / whole.p50 for part in parts]


def _threads(bench: Workbench) -> int:
    return bench.options.threads or 1


def _timed(cases: Sequence[tuple[Session, Mapping[str, Any]]], seconds: float) -> list[Latency]:
    for session, feeds in cases:
        for _ in range(_WARM_UP):
            session.run(feeds)
    times: list[list[float]] = [[] for _ in cases]
    begin = perf_counter()
    while _more(len(times[0]), perf_counter() - begin, seconds):
        for (session, feeds), found in zip(cases, times, strict=True):
            session.run(feeds)  # brings its weights back into the cache, as in steady use
            for _ in range(_TURN):
                start = perf_counter()
                session.run(feeds)
                found.append((perf_counter() - start) * 1e3)
    return [_latency(found) for found in times]


def _more(runs: int, passed: float, seconds: float) -> bool:
    """On a busy machine few runs tell nothing: go on until there are enough, within reason."""
    if runs < _FEWEST:
        return True
    return runs < _MOST and (passed < seconds or (runs < _ENOUGH and passed < _PATIENCE * seconds))


def _latency(times: list[float]) -> Latency:
    p50, p90, p99 = np.percentile(times, [50, 90, 99])
    return Latency(float(p50), float(p90), float(p99), len(times))

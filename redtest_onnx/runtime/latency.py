"""Measured latency of models, side by side in one run, on the untapped graph at full optimisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import onnx

from redtest_onnx.graph.model import Model
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.graph.subgraph import segment
from redtest_onnx.runtime.latency_command import run_latency_command
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

_WARM_UP = 5
_TURN = 5  # runs in a row
_FEWEST, _ENOUGH, _MOST = 15, 60, 400
_PATIENCE = 4  # times the seconds that may pass until there are enough
_REGION_SECONDS = 5.0
_ASKED = 3  # times a command of the user is run


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
    if (command := benches[0].options.latency_command) is not None:
        return [_told(command, bench.model) for bench in benches]
    feeds = benches[0].sample
    return _timed(
        [(bench.session(threads=_threads(bench), deployed=True), feeds) for bench in benches], seconds
    )


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
    whole_model = bench.session(threads=options.threads, deployed=True)
    timed: list[tuple[Session, dict[str, Any]]] = [(whole_model, dict(feeds))]
    for entry, exit_ in regions:
        part = segment(model, [exit_], {entry: onnx.helper.np_dtype_to_tensor_dtype(known[entry].dtype)})
        inputs = {spec.name: known[spec.name] for spec in part.inputs}
        timed.append((Session(part, options, deployed=True), inputs))
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


def _told(command: str, model: Model) -> Latency:
    """What a command of the user says, asked a few times."""
    return _latency([run_latency_command(command, model) for _ in range(_ASKED)])


def _more(runs: int, passed: float, seconds: float) -> bool:
    """On a busy machine few runs tell nothing: go on until there are enough, within reason."""
    if runs < _FEWEST:
        return True
    return runs < _MOST and (passed < seconds or (runs < _ENOUGH and passed < _PATIENCE * seconds))


def _latency(times: list[float]) -> Latency:
    p50, p90, p99 = np.percentile(times, [50, 90, 99])
    return Latency(float(p50), float(p90), float(p99), len(times))

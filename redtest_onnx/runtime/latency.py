"""Measured latency of models, side by side in one run, on the untapped graph at full optimisation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from time import perf_counter, process_time
from typing import Any

import numpy as np
import onnx

from redtest_onnx.graph.model import Model
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.graph.subgraph import segment
from redtest_onnx.layers.layer import Layer
from redtest_onnx.runtime.latency_command import run_latency_command
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.session_room import is_large
from redtest_onnx.runtime.workbench import Workbench

_WARM_UP, _WARM_UP_SECONDS = 5, 0.1  # at most so many runs, and no more once that time has passed
_TURN = 5  # runs in a row
_SLOW_TURN, _SLOW_MS = 2, 10.0  # of models whose one run makes up for waking the cache again
_SLOWEST_MS = 40.0  # of one run that is a turn by itself
_TURNS, _MOST = 5, 400
_SLOWEST_TURNS = 3  # of the slowest models, where they agree
_PRECISE, _CLOSE = 0.01, 0.02  # standard error of a ratio that more runs needn't lower; of the slowest models
_PATIENCE = 4  # times the seconds that may pass until it is as low as that; once for the slowest
_BUSY = 1.2  # times the processor's time that the clock may show
_REGION_SECONDS = 5.0
_ASKED = 3  # times a command of the user is run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Latency:
    """Time of one run, in milliseconds.

    Attributes:
        p50: median by the clock.
        p90: 90th percentile.
        p99: 99th percentile.
        runs: number of runs.
        cpu: median of the processor's time, all threads together; NaN if unknown.
        busy: whether other work kept the processor from the runs, so that the clock shows too much.
        error: standard error of the ratio of this model's median to the first one's that was measured beside
            it, relative to that ratio; 0 for the first.
    """

    p50: float
    p90: float
    p99: float
    runs: int
    cpu: float = float("nan")
    busy: bool = False
    error: float = 0.0


def measure_latency(benches: Sequence[Workbench], *, seconds: float = 1.0) -> list[Latency]:
    """Time models in turns on the same sample, so that other load on the machine hits all alike.

    Large models are timed one after the other instead, so that the weights of one at a time are in memory.
    With the options of their workbenches, but one thread if they leave that open, since waking others up
    costs small models more than their work and makes timings jump. A model that comes twice is timed once.

    Args:
        benches: models with the same signature; the first sample (the first few, for a fixed batch) of the
            first one is what they run on.
        seconds: time to spend on all of them together; more if their ratio is uncertain, less if it is not.
    """
    if (command := benches[0].options.latency_command) is not None:
        return [_told(command, bench.model) for bench in benches]
    feeds = benches[0].sample
    different: list[Workbench] = []
    places = []
    for bench in benches:
        place = next((k for k, other in enumerate(different) if _same(bench, other)), len(different))
        different += [bench] if place == len(different) else []
        places.append(place)
    if len(different) > 1 and any(is_large(bench.model) for bench in different):
        # From the last one on, which was made last: its session may still be open.
        found = [
            _timed([(_deployed(bench), feeds)], seconds / len(different))[0] for bench in different[::-1]
        ]
        found.reverse()
    else:
        found = _timed([(_deployed(bench), feeds) for bench in different], seconds)
    if any(latency.busy for latency in found):
        log.warning("the machine is busy with other work: latencies are too long, their ratio is uncertain")
    return [found[place] for place in places]


def _deployed(bench: Workbench) -> Session:
    return bench.session(threads=_threads(bench), deployed=True)


def _same(one: Workbench, other: Workbench) -> bool:
    """Whether two workbenches run the same model in the same way."""
    if one.options != other.options:
        return False
    if one.model is other.model:
        return True
    a, b = one.model, other.model
    if len(a.graph.node) != len(b.graph.node) or a.folder != b.folder:
        return False
    return all(n == m for n, m in zip(a.graph.node, b.graph.node, strict=True)) and a.proto == b.proto


def measure_regions(bench: Workbench, regions: Sequence[tuple[str, str]]) -> list[float]:
    """Time parts of a model, each by itself on what it reads in a run of the first sample.

    Args:
        bench: the model; run as in `measure_latency`.
        regions: the tensor that enters and the one that leaves each part.

    Returns:
        The median of each part as a share of the whole model's.
    """
    if not regions:
        return []
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


def measure_layers(bench: Workbench, layers: Sequence[Layer]) -> list[float | None]:
    """Time each layer by itself, from the activation it starts from to the one that leaves it.

    Args:
        bench: the model; run as in `measure_latency`.
        layers: L layers of it.

    Returns:
        [L], medians in milliseconds; None for layers that start from the model's inputs.
    """
    bench = bench.opened
    timed = [layer for layer in layers if layer.input is not None]
    whole = measure_latency([bench], seconds=1.0)[0].p50
    shares = iter(measure_regions(bench, [(layer.input or "", layer.exit) for layer in timed]))
    return [None if layer.input is None else next(shares) * whole for layer in layers]


def _threads(bench: Workbench) -> int:
    return bench.options.threads or 1


@dataclass
class _Times:
    """Times of one model: by the clock and of the processor, in ms, and the median of each turn."""

    clock: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)


def _timed(cases: Sequence[tuple[Session, Mapping[str, Any]]], seconds: float) -> list[Latency]:
    slowest = 0.0
    for session, feeds in cases:
        begin = perf_counter()
        for _ in range(_WARM_UP):
            start = perf_counter()
            session.run(feeds, borrowed=True)
            took = perf_counter() - start
            if took * 1e3 > _SLOWEST_MS or perf_counter() - begin > _WARM_UP_SECONDS:
                break
        slowest = max(slowest, took * 1e3)
    in_a_row = 1 if slowest > _SLOWEST_MS else _SLOW_TURN if slowest > _SLOW_MS else _TURN
    times = [_Times() for _ in cases]
    begin = perf_counter()
    while _more(times, perf_counter() - begin, seconds):
        for (session, feeds), found in zip(cases, times, strict=True):
            if in_a_row == _TURN:
                session.run(feeds, borrowed=True)  # brings its weights back into the cache, as in steady use
            for _ in range(in_a_row):
                cpu, start = process_time(), perf_counter()
                session.run(feeds, borrowed=True)
                found.clock.append((perf_counter() - start) * 1e3)
                found.cpu.append((process_time() - cpu) * 1e3)
            found.turns.append(float(np.median(found.clock[-in_a_row:])))
    on_cpu = all(session.device == "cpu" and not session.provider_names for session, _ in cases)
    return [_latency(found, times[0], on_cpu) for found in times]


def _told(command: str, model: Model) -> Latency:
    """What a command of the user says, asked a few times."""
    times = [run_latency_command(command, model) for _ in range(_ASKED)]
    p50, p90, p99 = (float(value) for value in np.percentile(times, [50, 90, 99]))
    return Latency(p50, p90, p99, len(times))


def _more(times: Sequence[_Times], passed: float, seconds: float) -> bool:
    """Whether more runs are needed: on a busy machine few tell nothing, on a quiet one they do."""
    turns, runs = len(times[0].turns), len(times[0].clock)
    slowest = turns == runs  # each turn is one run, which costs more than the last per cent is worth
    least, enough = (_SLOWEST_TURNS, _SLOWEST_TURNS) if slowest else (_TURNS, _TURNS * _TURN)
    if turns < least or (runs < enough and passed < seconds / 2):
        return True
    if runs >= _MOST or passed >= (1 if slowest else _PATIENCE) * seconds:
        return False
    wanted = _CLOSE if slowest else _PRECISE
    precise = all(_uncertainty(found, times[0]) < wanted for found in times[1:])
    if len(times) == 1:
        precise = float(np.std(times[0].turns)) / sqrt(turns) < wanted * float(np.mean(times[0].turns))
    return not precise


def _uncertainty(found: _Times, first: _Times) -> float:
    """Standard error of the ratio of two medians, from the ratios of single turns, relative to the ratio."""
    if found is first or len(found.turns) < 2:
        return 0.0
    ratios = np.array(found.turns) / np.array(first.turns)
    # That of a median, from a spread that single interruptions don't decide.
    spread = 1.4826 * float(np.median(np.abs(ratios - np.median(ratios))))
    return 1.2533 * spread / sqrt(len(ratios)) / float(np.median(ratios))


def _latency(found: _Times, first: _Times, on_cpu: bool) -> Latency:
    p50, p90, p99 = (float(value) for value in np.percentile(found.clock, [50, 90, 99]))
    cpu = float(np.median(found.cpu))
    busy = on_cpu and float(np.mean(found.clock)) > _BUSY * float(np.mean(found.cpu))
    return Latency(p50, p90, p99, len(found.clock), cpu, busy, _uncertainty(found, first))

"""Rules about budgets: sizes, latency, memory and redundancy within what the profile allows."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import floor
from pathlib import Path

from redtest_onnx.auditing.findings import Problem
from redtest_onnx.auditing.registry import rule
from redtest_onnx.auditing.subject import Subject
from redtest_onnx.text import digits

_MEGA = 1e6
_TIMING_MARGIN = 0.05
_SIMILAR = 0.98  # layers this similar to the last kept one are worth a try
_SMALLEST = 0.01  # share that a target may ask for
_REMOVED = 0.9  # what the advice takes out, so that what is left is clearly less similar


@rule(
    "RT050",
    "file-too-large",
    "error",
    explanation="The file with its external data is larger than the profile allows.",
    fix="Remove redundant layers, or quantise the weights.",
)
def file_too_large(subject: Subject) -> Iterator[Problem]:
    """Bytes on disk."""
    yield from _over(subject, "RT050")


@rule(
    "RT051",
    "weights-too-large",
    "error",
    explanation="The stored values are larger than the profile allows.",
    fix="Remove redundant layers, or quantise the weights.",
)
def weights_too_large(subject: Subject) -> Iterator[Problem]:
    """Bytes of stored values."""
    yield from _over(subject, "RT051")


@rule(
    "RT052",
    "activations-too-large",
    "error",
    explanation="The activations of one sample need more memory than the profile allows.",
    fix="Smaller inputs, or an earlier reduction of the resolution; quantised activations need a quarter.",
)
def activations_too_large(subject: Subject) -> Iterator[Problem]:
    """Peak of live activations, computed."""
    yield from _over(subject, "RT052")


@rule(
    "RT053",
    "too-many-macs",
    "error",
    explanation="One sample takes more multiply-accumulates than the profile allows.",
    fix="Remove redundant layers, or use smaller inputs.",
)
def too_many_macs(subject: Subject) -> Iterator[Problem]:
    """Multiply-accumulates of one sample."""
    yield from _over(subject, "RT053")


@rule(
    "RT054",
    "too-slow",
    "error",
    explanation="The median latency of one sample in one thread on this machine is above the budget.",
    fix="Remove redundant layers, quantise, or choose an accelerator.",
    runs=True,
)
def too_slow(subject: Subject) -> Iterator[Problem]:
    """Measured latency."""
    yield from _over(subject, "RT054")


@rule(
    "RT055",
    "slow-start",
    "error",
    explanation="Loading the model and its first run take longer than the profile allows.",
    fix="Save the optimised graph (SessionOptions.optimized_model_filepath) and load that, or "
    "shrink the model.",
    runs=True,
)
def slow_start(subject: Subject) -> Iterator[Problem]:
    """Measured time from file to first answer."""
    limit = subject.profile.budgets.cold_start_ms
    if limit is not None and subject.cold_start is not None and subject.cold_start > limit:
        found = digits(subject.cold_start)
        yield Problem(f"a first answer after {found} ms, {digits(limit)} ms are allowed", "cold start")


@rule(
    "RT056",
    "memory-too-large",
    "error",
    explanation="Weights and activations of one sample together need more memory than the profile allows.",
    fix="Remove redundant layers, quantise the weights, or use smaller inputs.",
)
def memory_too_large(subject: Subject) -> Iterator[Problem]:
    """Stored values and computed peak."""
    yield from _over(subject, "RT056")


@rule(
    "RT070",
    "redundant",
    "note",
    explanation="Layers compute nearly the same as one before them. They can often go without loss.",
    fix="Prune it with your own data, which shows what every removal costs: see `redtest-onnx prune --help`.",
    runs=True,
)
def redundant(subject: Subject) -> Iterator[Problem]:
    """Layers at least .98 similar to the last kept one, and the score against the profile."""
    analysis = subject.analysis
    if analysis is None:
        return
    repeated = [layer for layer, _ in analysis.repeated(_SIMILAR, lambda layer: layer.removable)]
    if repeated:
        parameters = sum(layer.parameters - layer.added_parameters for layer in repeated)
        held = f"{parameters / max(subject.cost.parameters, 1):.0%} of the parameters"
        if subject.cost.macs:  # else some layers' are known, and no total that they are a share of
            macs = sum((layer.macs or 0) - layer.added_macs for layer in repeated)
            held += f" and {macs / subject.cost.macs:.0%} of the MACs"
        origin = "synthetic inputs; measure on real ones" if analysis.synthetic else analysis.source
        verb = "repeats" if len(repeated) == 1 else "repeat"
        yield Problem(
            f"{len(repeated)} of {len(analysis.layers)} layers {verb} the one before, with {held} "
            f"(MSRS {analysis.redundancy.value:.1f}, on {origin})",
            "layers",
            tensors=tuple(layer.name for layer in repeated),
            fix=None if analysis.synthetic else _prune(subject),
        )


@rule(
    "RT071",
    "redundancy-over-budget",
    "error",
    explanation="The redundancy score is above what the profile allows: the model is deeper than its job "
    "needs.",
    fix="Remove redundant layers with `redtest-onnx prune`.",
    runs=True,
)
def redundancy_over_budget(subject: Subject) -> Iterator[Problem]:
    """The score against the profile."""
    limit, value = subject.profile.budgets.msrs, _msrs_over(subject)
    if value is not None:
        yield Problem(f"MSRS {value:.1f}, {limit:g} is allowed", "msrs", fix=_prune(subject))


@dataclass(frozen=True)
class _Limit:
    """A quantity beside what the profile allows of it.

    Attributes:
        cause: what the problem is told from others by.
        found: the quantity; None where it is not known.
        allowed: the most there may be; None where that is not limited.
        target: what a pruning counts of it; None where removing layers seldom helps.
        share: how much of that may be left.
        unit: of both numbers.
        words: the quantity, as it is told.
    """

    cause: str
    found: float | None
    allowed: float | None
    target: str | None
    share: float
    unit: str
    words: str

    @property
    def over(self) -> bool:
        """Whether the profile does not allow that much."""
        return self.found is not None and self.allowed is not None and self.found > self.allowed


def _simple(
    cause: str,
    found: float | None,
    allowed: float | None,
    target: str | None,
    unit: str,
    words: str,
    margin: float = 0.0,
) -> _Limit:
    share = allowed / found if found and allowed is not None else 1.0
    words = "" if found is None else words.format(f"{digits(found)} {unit}")
    return _Limit(cause, found, allowed, target, floor(100 * share) / 100 - margin, unit, words)


def _file(subject: Subject) -> _Limit:
    found, allowed = subject.model.file_bytes / _MEGA, subject.profile.budgets.file_mb
    return _simple("size", found, allowed, "size", "MB", "a file of {}")


def _weights(subject: Subject) -> _Limit:
    found, allowed = subject.cost.parameter_bytes / _MEGA, subject.profile.budgets.weights_mb
    return _simple("params", found, allowed, "params", "MB", "weights of {}")


def _peak(subject: Subject) -> float | None:
    peak = subject.cost.peak_activation_bytes
    return None if peak is None else peak / _MEGA


def _activations(subject: Subject) -> _Limit:
    # Removing layers seldom lowers the peak of activations.
    allowed = subject.profile.budgets.activations_mb
    return _simple("activations", _peak(subject), allowed, None, "MB", "activations of {}")


def _macs(subject: Subject) -> _Limit:
    macs = subject.cost.macs
    found = None if macs is None else macs / _MEGA
    return _simple("macs", found, subject.profile.budgets.macs_m, "macs", "million", "{} MACs")


def _latency(subject: Subject) -> _Limit:
    allowed = subject.profile.budgets.latency_ms
    measured = subject.latency if allowed is not None and subject.runs else None
    found = None if measured is None else measured.p50
    words = "a latency of {}"
    return _simple("latency", found, allowed, "latency", "ms", words, _TIMING_MARGIN)  # timings vary


def _memory(subject: Subject) -> _Limit:
    weights, peak = subject.cost.parameter_bytes / _MEGA, _peak(subject)
    allowed = subject.profile.budgets.memory_mb
    found = None if peak is None else weights + peak
    share = 0.0
    if peak is not None and allowed is not None and weights:
        share = floor(100 * (allowed - peak) / weights) / 100
    words = f"{digits(weights)} MB of weights and {digits(peak or 0.0)} MB of activations"
    return _Limit("memory", found, allowed, "params", share, "MB", words)


_LIMITS: dict[str, Callable[[Subject], _Limit]] = {
    "RT050": _file,
    "RT051": _weights,
    "RT052": _activations,
    "RT053": _macs,
    "RT054": _latency,
    "RT056": _memory,
}


def _over(subject: Subject, rule_id: str) -> Iterator[Problem]:
    limit = _LIMITS[rule_id](subject)
    if limit.over and limit.allowed is not None:
        fix = _prune(subject) if _helps(limit) else None
        yield Problem(
            f"{limit.words}, {digits(limit.allowed)} {limit.unit} are allowed", limit.cause, fix=fix
        )


def _helps(limit: _Limit) -> bool:
    return limit.target is not None and limit.share >= _SMALLEST


def _msrs_over(subject: Subject) -> float | None:
    """The score where it is above what the profile allows."""
    limit, analysis = subject.profile.budgets.msrs, subject.analysis
    value = None if limit is None or analysis is None else analysis.redundancy.value
    return value if value is not None and limit is not None and value > limit else None


def _prune(subject: Subject) -> str:
    """The command that meets all budgets that are exceeded and that removing layers helps to meet.

    It is one command, since a second one would write the same file, and would not keep to what the first is
    for. Where sizes are limited, MSRS is lowered with them.
    """
    data: tuple[str, ...] = subject.given
    if not data and not subject.data.synthetic:
        data = "--data", _path_of(subject.data.source)
    off = {rule_id for rule_id, severity in subject.profile.severities.items() if severity == "off"}
    shares: dict[str, float] = {}
    for limit in (of(subject) for rule_id, of in _LIMITS.items() if rule_id not in off):
        if limit.over and limit.target is not None and _helps(limit):
            shares[limit.target] = min(limit.share, shares.get(limit.target, 1.0))
    how = [word for what, share in shares.items() for word in ("--target", f"{what}={share:.2f}")]
    if not how and "RT071" not in off and subject.runs and _msrs_over(subject) is not None:
        how = ["--threshold", str(_REMOVED)]
    return shlex.join(["redtest-onnx", "prune", subject.label, *data, *how, "-o", subject.beside("pruned")])


def _path_of(source: str) -> str:
    """The file that samples come from, without the split behind its name."""
    file, _, _ = source.rpartition(":")
    return file if file and not Path(source).exists() and Path(file).exists() else source

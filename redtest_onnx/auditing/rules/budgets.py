"""Rules about budgets: sizes, latency, memory and redundancy within what the profile allows."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from math import floor
from pathlib import Path

from redtest_onnx.auditing.findings import Problem
from redtest_onnx.auditing.registry import rule
from redtest_onnx.auditing.subject import Subject
from redtest_onnx.text import digits

_MEGA = 1e6
_TIMING_MARGIN = 0.05
_SIMILAR = 0.98  # layers this similar to the last kept one are worth a try
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
    yield from _over(subject, "size", subject.model.file_bytes / _MEGA, subject.profile.budgets.file_mb, "MB")


@rule(
    "RT051",
    "weights-too-large",
    "error",
    explanation="The stored values are larger than the profile allows.",
    fix="Remove redundant layers, or quantise the weights.",
)
def weights_too_large(subject: Subject) -> Iterator[Problem]:
    """Bytes of stored values."""
    found, limit = subject.cost.parameter_bytes / _MEGA, subject.profile.budgets.weights_mb
    yield from _over(subject, "params", found, limit, "MB")


@rule(
    "RT052",
    "activations-too-large",
    "error",
    explanation="The activations of one sample need more memory than the profile allows.",
    fix="Smaller inputs, or an earlier reduction of the resolution; quantised activations need a quarter.",
)
def activations_too_large(subject: Subject) -> Iterator[Problem]:
    """Peak of live activations, computed."""
    peak = subject.cost.peak_activation_bytes
    if peak is not None:
        yield from _over(subject, "activations", peak / _MEGA, subject.profile.budgets.activations_mb, "MB")


@rule(
    "RT053",
    "too-many-macs",
    "error",
    explanation="One sample takes more multiply-accumulates than the profile allows.",
    fix="Remove redundant layers, or use smaller inputs.",
)
def too_many_macs(subject: Subject) -> Iterator[Problem]:
    """Multiply-accumulates of one sample."""
    macs = subject.cost.macs
    if macs is not None:
        yield from _over(subject, "macs", macs / _MEGA, subject.profile.budgets.macs_m, "million")


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
    if subject.profile.budgets.latency_ms is not None and subject.latency is not None:
        yield from _over(subject, "latency", subject.latency.p50, subject.profile.budgets.latency_ms, "ms")


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
        yield Problem(f"{digits(subject.cold_start)} ms, {digits(limit)} ms are allowed", "cold start")


@rule(
    "RT056",
    "memory-too-large",
    "error",
    explanation="Weights and activations of one sample together need more memory than the profile allows.",
    fix="Remove redundant layers, quantise the weights, or use smaller inputs.",
)
def memory_too_large(subject: Subject) -> Iterator[Problem]:
    """Stored values and computed peak."""
    weights, peak = subject.cost.parameter_bytes / _MEGA, subject.cost.peak_activation_bytes
    limit = subject.profile.budgets.memory_mb
    if limit is None or peak is None or weights + peak / _MEGA <= limit:
        return
    share = floor(100 * (limit - peak / _MEGA) / weights) / 100 if weights else 0.0
    yield Problem(
        f"{digits(weights)} MB of weights and {digits(peak / _MEGA)} MB of activations, "
        f"{digits(limit)} MB are allowed",
        "memory",
        fix=_prune(subject, "--target", f"params={share:.2f}") if share >= 0.01 else None,
    )


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
    gone = [layer for layer, _ in analysis.repeated(_SIMILAR, lambda layer: layer.removable)]
    if gone:
        parameters = sum(layer.parameters - layer.added_parameters for layer in gone)
        macs = sum((layer.macs or 0) - layer.added_macs for layer in gone)
        origin = "synthetic inputs; measure on real ones" if analysis.synthetic else analysis.source
        verb = "repeats" if len(gone) == 1 else "repeat"
        yield Problem(
            f"{len(gone)} of {len(analysis.layers)} layers {verb} the one before, with "
            f"{parameters / max(subject.cost.parameters, 1):.0%} of the parameters and "
            f"{macs / max(subject.cost.macs or 1, 1):.0%} of the MACs "
            f"(MSRS {analysis.redundancy.value:.1f}, on {origin})",
            "layers",
            tensors=tuple(layer.name for layer in gone),
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
    limit, analysis = subject.profile.budgets.msrs, subject.analysis
    if limit is not None and analysis is not None and analysis.redundancy.value > limit:
        yield Problem(
            f"MSRS {analysis.redundancy.value:.1f}, {limit:g} is allowed",
            "msrs",
            fix=_prune(subject, "--threshold", str(_REMOVED)),
        )


def _over(subject: Subject, quantity: str, found: float, limit: float | None, unit: str) -> Iterator[Problem]:
    if limit is None or found <= limit:
        return
    share = floor(100 * limit / found) / 100
    # Removing layers seldom lowers the peak of activations, and timings vary.
    share = share - _TIMING_MARGIN if quantity == "latency" else share
    able = share >= 0.01 and quantity != "activations"
    fix = _prune(subject, "--target", f"{quantity}={share:.2f}") if able else None
    yield Problem(f"{digits(found)} {unit}, {digits(limit)} {unit} are allowed", quantity, fix=fix)


def _prune(subject: Subject, *how: str) -> str:
    data: tuple[str, ...] = subject.given
    if not data and not subject.data.synthetic:
        data = "--data", _path_of(subject.data.source)
    return shlex.join(["redtest-onnx", "prune", subject.label, *data, *how, "-o", subject.beside("pruned")])


def _path_of(source: str) -> str:
    """The file that samples come from, without the split behind its name."""
    file, _, _ = source.rpartition(":")
    return file if file and not Path(source).exists() and Path(file).exists() else source

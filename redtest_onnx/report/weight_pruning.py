"""What pruning of weights bought, stage by stage: table, words, JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from redtest_onnx.metrics.agreement.intervals import Interval, share_interval
from redtest_onnx.report.agreement import interval_name
from redtest_onnx.report.numbers import count, interval95, milliseconds, size
from redtest_onnx.report.table import Cell, Column, Shown, Table
from redtest_onnx.weight_sparsity.documents import stage_shares
from redtest_onnx.weight_sparsity.iterative.iterative import IterativePruning
from redtest_onnx.weight_sparsity.iterative.stages import Stage
from redtest_onnx.weight_sparsity.pipeline import COMPACTED, WeightPruning

# A change of the median below this is what repeated runs of one model differ by.
_NOISE = 0.05


def stage_table(pruning: WeightPruning) -> Table:
    """One column a stage, with the change from the original."""
    stages = pruning.stages
    rows = [
        _row("weights that are not zero", stages, lambda s: s.nonzero, count),
        _row("parameters", stages, lambda s: s.cost.parameters, count),
        _row("MACs", stages, lambda s: s.cost.macs, count),
        _row("file size", stages, lambda s: s.file_bytes, size),
        _row("compressed (zlib)", stages, lambda s: s.compressed_bytes, size),
        _row("latency p50", stages, lambda s: s.latency.p50, milliseconds),
    ]
    accuracies = [stage.accuracy for stage in stages if stage.accuracy is not None]
    if len(accuracies) == len(stages):
        rows.append(("accuracy", *(Shown(value, f"{value:.2%}") for value in accuracies)))
        rows.extend(_intervals([share_interval(value, pruning.evaluated) for value in accuracies], pruning))
    if all(stage.same is not None for stage in stages):
        rows.append(("agreement with the original", *(Shown(s.same, f"{s.same:.2%}") for s in stages)))
        rows.extend(_intervals([stage.interval for stage in stages], pruning))
    columns = [
        Column("measure", "", "name"),
        *(Column(s.name.replace(" ", "_"), s.name, "decimal") for s in stages),
    ]
    return Table("stages", "Stage by stage", tuple(columns), tuple(rows))


def _intervals(intervals: list[Interval | None], pruning: WeightPruning) -> Iterator[tuple[Cell, ...]]:
    """A row of how far few samples tell; none where there are enough."""
    ends = [interval95(interval) for interval in intervals]
    if any(ends):
        yield interval_name(pruning.evaluated), *ends


def iteration_table(found: IterativePruning) -> Table:
    """One row a training; the chosen one is marked."""
    columns = (
        Column("iteration", "iteration", "integer"),
        Column("kept", "weights left", "share"),
        Column("pq_index", "PQ Index of what remains", drop=1),
        Column("validation_accuracy", "validation accuracy", "share"),
        Column("chosen", ""),
    )
    rows = []
    for record in found.iterations:
        index = ", ".join(
            "undefined" if math.isnan(v["global"]) else f"{v['global']:.3f}" for v in record.pq_index
        )
        chosen = "chosen" if record == found.chosen else ""
        rows.append((record.number, record.kept / record.weights, index, record.accuracy, chosen))
    return Table("iterations", "Iterations", columns, tuple(rows))


def pruning_words(pruning: WeightPruning, output: Path) -> list[str]:
    """The result in a practitioner's words; what did not get better is said, too."""
    first, last = pruning.stages[0], pruning.stages[-1]
    lines = [
        f"{last.nonzero:,} of {first.nonzero:,} weights are left ({last.nonzero / first.nonzero:.1%}): "
        f"{first.nonzero / max(1, last.nonzero):.1f} times sparser."
    ]
    if len(pruning.stages) > 2:
        shares = "; ".join(
            f"{name} {weights:.0%} of the weights and {packed:.0%} of the compressed size"
            for name, weights, packed in stage_shares(pruning)
        )
        lines.append(f"Share of each step in what was saved: {shares}.")
    lines.append(_latency_words(pruning))
    if pruning.cuts:
        lines.append(_channel_words(pruning))
    lines.append(f"Compared on {pruning.evaluated} samples of {pruning.evaluated_on}. Written to {output}.")
    return lines


def _latency_words(pruning: WeightPruning) -> str:
    """What the zeros alone did to the time of a run."""
    names = [stage.name for stage in pruning.stages]
    zeroed = pruning.stages[-2] if names[-1] == COMPACTED else pruning.stages[-1]
    before = pruning.stages[pruning.stages.index(zeroed) - 1]
    change = zeroed.latency.p50 / before.latency.p50 - 1
    measured = f"{before.latency.p50:.3f} ms before, {zeroed.latency.p50:.3f} ms after"
    if abs(change) < _NOISE:
        return (
            f"The zeros do not make it faster ({measured}): they stand in no particular place, and "
            "ONNX Runtime multiplies by them all the same. They pay where the file is sent compressed."
        )
    return (
        f"Latency {measured}. Zeros in no particular place do not speed ONNX Runtime up, it multiplies by "
        "them all the same: take a change this small for noise, and run again on a quiet machine."
        if abs(change) < 3 * _NOISE
        else f"Latency {measured}. That is not the zeros' doing, since ONNX Runtime multiplies by them all "
        "the same: the machine was busy, or very small numbers slowed one of the models down."
    )


def _channel_words(pruning: WeightPruning) -> str:
    """What the removal of channels did."""
    removed = sum(cut.removed for cut in pruning.cuts)
    folded = sum(cut.folded for cut in pruning.cuts)
    constant = f" ({folded} of them were constants, now in a bias)" if folded else ""
    words = f"Channels that computed nothing are out of the graph, exactly: {removed}{constant}."
    before, after = (stage.latency.p50 for stage in pruning.stages[-2:])
    if after < before * (1 - _NOISE):
        return f"{words} That saves time, too."
    if after > before * (1 + _NOISE):
        return (
            f"{words} It is not faster for that: runtimes work on blocks of 8 or 16 channels, and a number "
            "between takes longer. Prune more, or --keep-channels."
        )
    return f"{words} They are too few to save time."


def _row(
    name: str,
    stages: tuple[Stage, ...],
    value: Callable[[Stage], float | None],
    show: Callable[[float | None], str],
) -> tuple[Cell, ...]:
    original = value(stages[0])
    cells = [Shown(original, show(original))]
    for stage in stages[1:]:
        new = value(stage)
        change = f" ({new / original - 1:+.1%})" if original and new is not None else ""
        cells.append(Shown(new, show(new) + change))
    return name, *cells

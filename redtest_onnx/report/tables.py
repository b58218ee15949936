"""Tables of layers, and of a model before and after."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from redtest_onnx.graph.cost import Cost
from redtest_onnx.layers.layer import Layer
from redtest_onnx.metrics.agreement.intervals import share_interval
from redtest_onnx.report import numbers
from redtest_onnx.report.agreement import EMPTY, agreement_rows, interval_name
from redtest_onnx.report.table import Cell, Column, Shown, Table
from redtest_onnx.runtime.latency import Latency

if TYPE_CHECKING:  # a table of layers needs nothing that prunes
    from redtest_onnx.pruning.prune import Pruning

_LEAST_MSRS = 0.05  # below it a score is shown as nothing

_LAYER_COLUMNS = (
    Column("index", "#", "integer"),
    Column("name", "layer", "name"),
    Column("kind", "kind", drop=3),
    Column("shape", "shape", drop=5),
    Column("parameters", "parameters", "count", drop=2, bar=True),
    Column("macs", "MACs", "count", drop=4, bar=True),
)
_SIMILARITY = Column("similarity", "similarity", "similarity", bar=True)
_LATENCY = Column("latency_ms", "latency", "milliseconds", drop=2, bar=True)
_REMOVABLE = Column("removable", "removable", "reason", drop=1)


def layer_table(
    layers: Iterable[Layer],
    similarity: Sequence[float | None] | None = None,
    *,
    latency_ms: Sequence[float | None] | None = None,
    removed: Collection[str] = (),
    marking: str = "removed",
) -> Table:
    """The series of layers.

    Args:
        layers: the series, L layers.
        similarity: [L], each layer's CKA with the layer before; NaN where undefined, None for the first.
        latency_ms: [L], time of each layer where it was measured.
        removed: names of layers that were taken out, or would be.
        marking: which of both.
    """
    columns, rows, marked = [*_LAYER_COLUMNS], [], set()
    columns += [_SIMILARITY] * (similarity is not None) + [_LATENCY] * (latency_ms is not None)
    for i, layer in enumerate(layers):
        cells: list[Cell] = [
            layer.index,
            layer.name,
            layer.kind,
            "x".join(map(str, layer.shape)) if layer.shape is not None else "?",
            _parameters(layer),
            layer.macs,
        ]
        cells += [series[i] for series in (similarity, latency_ms) if series is not None]
        gone = layer.name in removed
        if gone:
            marked.add(i)
        rows.append((*cells, marking if gone else removable(layer)))
    return Table("layers", "Layers", (*columns, _REMOVABLE), tuple(rows), frozenset(marked))


def removable(layer: Layer) -> str:
    """Whether a layer can be taken out: "yes", or how or why not behind a colon."""
    if layer.action == "bypass":
        return "yes"
    if layer.action == "adapter":
        return f"with an adapter: {layer.reason or 'its shapes differ'}"
    return f"no: {layer.reason or ''}"


def comparison_table(pruning: Pruning) -> Table:
    """The original and the pruned model side by side."""
    a, b = pruning.before, pruning.after
    rows: list[tuple[Cell, ...]] = [
        *cost_rows((a.cost, a.file_bytes, a.latency), (b.cost, b.file_bytes, b.latency)),
        row_of("MSRS", a.msrs, b.msrs, numbers.msrs, _LEAST_MSRS),
        *accuracy_rows(a.accuracy, b.accuracy, pruning.evaluated),
        *agreement_rows(pruning.agreement, pruning.evaluated),
    ]
    if isfinite(pruning.agreement.relative_l2):
        difference = Shown(pruning.agreement.relative_l2, f"{pruning.agreement.relative_l2:.4f}")
        rows.append(("output difference (relative)", EMPTY, difference, EMPTY))
    return Table("before_after", "Before and after", change_columns("original", "pruned"), tuple(rows))


def change_columns(before: str, after: str) -> tuple[Column, ...]:
    """Columns of a measure on two sides and its change."""
    return (
        Column("measure", "", "name"),
        Column("original", before, "decimal"),
        Column("pruned" if after == "pruned" else "other", after, "decimal"),
        Column("change", "change", "decimal", drop=1),
    )


def _parameters(layer: Layer) -> Cell:
    """The layer's own learned values, with those it shares with others."""
    if layer.shared_parameters <= layer.parameters // 100:
        return layer.parameters
    shared = numbers.count(layer.shared_parameters)
    return Shown(layer.parameters, f"{numbers.count(layer.parameters)} (+ {shared} shared)")


def run_words(cost: Cost) -> str:
    """What the memory of activations is for."""
    return "per sample" if cost.run_samples == 1 else f"per run of {cost.run_samples} samples"


def at_sizes(cost: Cost) -> str:
    """What stands behind numbers that depend on guessed sizes, such as " at x 1x3x64x64 (a guess)"."""
    if cost.at is None:
        return ""
    first, *more = cost.at.split(", ")
    return f" {cost.at if len(more) < 2 else f'{first} and {len(more)} more inputs'} (a guess)"


def cost_rows(before: tuple[Cost, int, Latency], after: tuple[Cost, int, Latency]) -> list[tuple[Cell, ...]]:
    """What two models store and take, each given as its cost, bytes of its file and latency."""
    (a, a_bytes, a_latency), (b, b_bytes, b_latency) = before, after
    memory = f"activation peak{at_sizes(a)}"
    return [
        row_of("parameters", a.parameters, b.parameters, numbers.count),
        row_of(f"MACs{at_sizes(a)}", a.macs, b.macs, numbers.count),
        row_of("file size", a_bytes, b_bytes, numbers.size),
        row_of(memory, a.peak_activation_bytes, b.peak_activation_bytes, numbers.size),
        row_of("latency p50", a_latency.p50, b_latency.p50, numbers.milliseconds),
        row_of("latency p90", a_latency.p90, b_latency.p90, numbers.milliseconds),
    ]


def accuracy_rows(before: float | None, after: float | None, samples: int) -> list[tuple[Cell, ...]]:
    """The accuracies of two models on so many samples; nothing where one is unknown."""
    if before is None or after is None:
        return []
    points = (after - before) * 100
    shown = [Shown(value, f"{value:.2%}") for value in (before, after)]
    rows: list[tuple[Cell, ...]] = [("accuracy", *shown, Shown(points / 100, f"{points:+.2f} points"))]
    ends = [numbers.interval95(share_interval(value, samples)) for value in (before, after)]
    if any(ends):
        rows.append((interval_name(samples), *ends, EMPTY))
    return rows


def row_of(
    name: str,
    before: float | None,
    after: float | None,
    show: Callable[[float | None], str],
    least: float = 0.0,
) -> tuple[Cell, ...]:
    """Name, before, after and change in per cent; no change where `before` is no more than `least`."""
    change = EMPTY
    # Of nearly nothing a percentage would only be large.
    if before is not None and abs(before) > least and after is not None and isfinite(after):
        change = Shown(after / before - 1, f"{after / before - 1:+.1%}")
    return name, Shown(before, show(before)), Shown(after, show(after)), change

"""Tables of layers, and of a model before and after."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from redtest_onnx.graph.cost import Cost
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.prune import Pruning
from redtest_onnx.report import numbers
from redtest_onnx.report.table import Cell, Column, Shown, Table

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
) -> Table:
    """The series of layers.

    Args:
        layers: the series, L layers.
        similarity: [L], each layer's CKA with the layer before; NaN where undefined, None for the first.
        latency_ms: [L], time of each layer where it was measured.
        removed: names of layers that were taken out.
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
        rows.append((*cells, "removed" if gone else removable(layer)))
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
    rows = [
        _row("parameters", a.cost.parameters, b.cost.parameters, numbers.count),
        _row(f"MACs{at_sizes(a.cost)}", a.cost.macs, b.cost.macs, numbers.count),
        _row("file size", a.file_bytes, b.file_bytes, numbers.size),
        _row(
            f"activation peak{at_sizes(a.cost)}",
            a.cost.peak_activation_bytes,
            b.cost.peak_activation_bytes,
            numbers.size,
        ),
        _row("latency p50", a.latency.p50, b.latency.p50, numbers.milliseconds),
        _row("latency p90", a.latency.p90, b.latency.p90, numbers.milliseconds),
        _row("MSRS", a.msrs, b.msrs, lambda v: "-" if v is None else f"{v:.1f}"),
    ]
    if a.accuracy is not None and b.accuracy is not None:
        points = (b.accuracy - a.accuracy) * 100
        shown = [Shown(value, f"{value:.2%}") for value in (a.accuracy, b.accuracy)]
        rows.append(("accuracy", *shown, Shown(points / 100, f"{points:+.2f} points")))
    if pruning.agreement.top1 is not None:
        same = Shown(pruning.agreement.top1, f"{pruning.agreement.top1:.2%}")
        rows.append(("same answer as the original", None, same, None))
    difference = Shown(pruning.agreement.relative_l2, f"{pruning.agreement.relative_l2:.4f}")
    rows.append(("output difference (relative)", None, difference, None))
    columns = (
        Column("measure", "", "name"),
        Column("original", "original", "decimal"),
        Column("pruned", "pruned", "decimal"),
        Column("change", "change", "decimal"),
    )
    return Table("before_after", "Before and after", columns, tuple(_blank(row) for row in rows))


def _parameters(layer: Layer) -> Cell:
    """The layer's own learned values, with those it shares with others."""
    if layer.shared_parameters <= layer.parameters // 100:
        return layer.parameters
    shared = numbers.count(layer.shared_parameters)
    return Shown(layer.parameters, f"{numbers.count(layer.parameters)} (+ {shared} shared)")


def at_sizes(cost: Cost) -> str:
    """What stands behind numbers that depend on guessed sizes, such as " at x 1x3x64x64 (a guess)"."""
    return "" if cost.at is None else f" {cost.at} (a guess)"


def _blank(row: tuple[Cell, ...]) -> tuple[Cell, ...]:
    return tuple(Shown(None, "") if cell is None else cell for cell in row)


def _row(
    name: str, before: float | None, after: float | None, show: Callable[[float | None], str]
) -> tuple[Cell, ...]:
    change = None
    if before and after is not None:
        change = Shown(after / before - 1, f"{after / before - 1:+.1%}")
    return name, Shown(before, show(before)), Shown(after, show(after)), change

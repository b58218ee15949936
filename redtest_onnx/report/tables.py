"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from redtest_onnx.graph.cost import Cost
from redtest_onnx.layers.layer import Layer
from redtest_onnx.report.agreement import agreement_rows
from redtest_onnx.runtime.latency import Latency

_LEAST_MSRS = 0.05  # below it a score is shown as nothing

if TYPE_CHECKING:
    from redtest_onnx.pruning.prune import Pruning


def layer_table(layers: Iterable[Layer], similarity: Sequence[float | None] | None = None) -> Table:
    """The series of layers, with the similarity to the layer before where it was measured."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("#", "layer", "kind", "shape", "parameters", "MACs"):
        table.add_column(name, justify="right" if name in ("#", "parameters", "MACs") else "left")
    if similarity is not None:
        table.add_column("similarity", justify="right")
    table.add_column("removable", overflow="fold")
    for layer in layers:
        cells = [
            str(layer.index),
            escape(layer.name),
            layer.kind,
            "x".join(map(str, layer.shape)) if layer.shape is not None else "?",
            count(layer.parameters),
            count(layer.macs),
        ]
        if similarity is not None:
            value = similarity[layer.index]
            cells.append("" if value is None else "undefined" if value != value else f"{value:.4f}")
        table.add_row(*cells, _removable(layer))
    return table


def comparison_table(pruning: Pruning) -> Table:
    """The original and the pruned model side by side."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("original", "pruned", "change"):
        table.add_column(name, justify="right")
    for row in comparison_rows(pruning):
        table.add_row(*row)
    return table


def comparison_rows(pruning: Pruning) -> list[tuple[str, str, str, str]]:
    """Rows of name, original, pruned, change."""
    a, b = pruning.before, pruning.after
    rows = [
        *cost_rows((a.cost, a.file_bytes, a.latency), (b.cost, b.file_bytes, b.latency)),
        row_of("MSRS", a.msrs, b.msrs, lambda v: "-" if v is None else f"{v:.1f}", _LEAST_MSRS),
    ]
    rows.extend(accuracy_rows(a.accuracy, b.accuracy))
    rows.extend((name, "", value, "") for name, value in agreement_rows(pruning.agreement))
    if isfinite(pruning.agreement.relative_l2):
        rows.append(("output difference (relative)", "", f"{pruning.agreement.relative_l2:.4f}", ""))
    return rows


def cost_rows(
    before: tuple[Cost, int, Latency], after: tuple[Cost, int, Latency]
) -> list[tuple[str, str, str, str]]:
    """What two models store and take, each given as its cost, bytes of its file and latency."""
    (a, a_bytes, a_latency), (b, b_bytes, b_latency) = before, after
    return [
        row_of("parameters", a.parameters, b.parameters, count),
        row_of("MACs", a.macs, b.macs, count),
        row_of("file size", a_bytes, b_bytes, size),
        row_of("activation peak", a.peak_activation_bytes, b.peak_activation_bytes, size),
        row_of("latency p50", a_latency.p50, b_latency.p50, _ms),
        row_of("latency p90", a_latency.p90, b_latency.p90, _ms),
    ]


def accuracy_rows(before: float | None, after: float | None) -> list[tuple[str, str, str, str]]:
    """The accuracies of two models; nothing where one is unknown."""
    if before is None or after is None:
        return []
    return [("accuracy", f"{before:.2%}", f"{after:.2%}", f"{(after - before) * 100:+.2f} points")]


def count(value: float | None) -> str:
    """A number of things in thousands or millions."""
    if value is None:
        return "?"
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.2f} {unit}"
    return str(int(value))


def size(value: float | None) -> str:
    """Bytes in KiB or MiB."""
    if value is None:
        return "?"
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= factor:
            return f"{value / factor:.2f} {unit}"
    return f"{int(value)} B"


def _ms(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f} ms"


def row_of(
    name: str,
    before: float | None,
    after: float | None,
    show: Callable[[float | None], str],
    least: float = 0.0,
) -> tuple[str, str, str, str]:
    """Name, before, after and change in per cent; no change where `before` is no more than `least`."""
    # Of nearly nothing a percentage would only be large.
    little = before is None or abs(before) <= least
    change = "" if little or before is None or after is None else f"{after / before - 1:+.1%}"
    return name, show(before), show(after), change


def _removable(layer: Layer) -> str:
    if layer.action == "bypass":
        return "yes"
    if layer.action == "adapter":
        return f"with an adapter: {escape(layer.reason or '')}"
    return f"no: {escape(layer.reason or '')}"

"""The trade-off between size and quality as a table and as a chart of the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from redtest_onnx.pruning.curve import Curve
from redtest_onnx.report.numbers import count, interval95, milliseconds, percent, plural
from redtest_onnx.report.page.layers import trade_off
from redtest_onnx.report.page.model import Point, Points
from redtest_onnx.report.table import Cell, Column, Table


def quality_name(curve: Curve) -> str:
    """What the quality of a series is."""
    labelled = any(point.pruning.after.accuracy is not None for point in curve.points)
    return "accuracy" if labelled else "agreement with the original"


def curve_table(curve: Curve, files: Sequence[Path]) -> Table:
    """A row per model; a star marks the one that was chosen."""
    columns = (
        Column("removed", "removed" if curve.unit == "layer" else "blocks removed", "integer"),
        Column("parameters", "parameters", "count", bar=True),
        Column("share", "of the original", "share", drop=3),
        Column("macs", "MACs", "count", drop=2),
        Column("latency_ms", "latency p50", "milliseconds", drop=4),
        Column("quality", quality_name(curve), "share", bar=True),
        Column("interval95", "95% interval", drop=3),
        Column("chosen", "chosen", drop=1),
        Column("file", "file", "name"),
    )
    rows: list[tuple[Cell, ...]] = []
    for i, (point, file) in enumerate(zip(curve.points, files, strict=True)):
        after = point.pruning.after
        figures = (after.cost.parameters, point.share, after.cost.macs, after.latency.p50, point.quality)
        ends = interval95(point.pruning.interval)
        rows.append((point.removed, *figures, ends, "*" if i == curve.chosen else "", file.name))
    return Table("curve", "Trade-off", columns, tuple(rows))


def curve_chart(curve: Curve) -> Points:
    """Quality over the share of parameters that remains."""
    front = curve.front
    points = []
    for i, point in enumerate(curve.points):
        after = point.pruning.after
        if point.quality is None:
            continue
        detail = (
            f"{count(after.cost.parameters)} parameters, {count(after.cost.macs)} MACs, "
            f"{milliseconds(after.latency.p50)}, {quality_name(curve)} {percent(point.quality)}"
        )
        name = f"{plural(point.removed, curve.unit)} removed"
        chosen = i == curve.chosen
        points.append(Point(point.share, point.quality, name, detail, front=i in front, chosen=chosen))
    note = "" if curve.chosen is None else chosen_words(curve)
    return trade_off(points, quality_name(curve), note)


def chosen_words(curve: Curve, name: str = "Chosen") -> str:
    """Why a model was chosen, and whether the series is shown on other samples than those that chose."""
    words = f"{name} is the smallest within {curve.max_drop:.1%} loss on held-out samples"
    if all(point.pruning.judged_apart and point.pruning.repair.loss is not None for point in curve.points):
        return f"{words}; the figures are of other samples, which choose nothing."
    return f"{words}, which the figures are of, too."

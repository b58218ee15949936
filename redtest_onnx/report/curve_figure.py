"""Accuracy, cost and MSRS along a pruning as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from redtest_onnx.pruning.curve import Curve
from redtest_onnx.report.curves import quality_name
from redtest_onnx.report.figures import fold_title, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_curve_figure(curve: Curve, title: str, path: Path) -> None:
    """Write the picture; the suffix of `path` tells the format (.png, .svg, .pdf)."""
    save_figure(draw_curve(curve, title), path)


def draw_curve(curve: Curve, title: str) -> Figure:
    """Quality, costs as shares of the original's, and MSRS over the number of removed layers.

    What RedTest shows of a pruning (arXiv 2411.10507, figure 2): redundancy and cost fall long before the
    accuracy does.

    Args:
        curve: a series of models; the original stands at zero.
        title: of the figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(7.5, 8.5), layout="constrained")
    quality, cost, redundancy = figure.subplots(3, 1, sharex=True)
    head = curve.points[0].pruning.before
    sides = [head, *(point.pruning.after for point in curve.points)]
    removed = [0, *(point.removed for point in curve.points)]
    start = head.accuracy if head.accuracy is not None else 1.0
    values = [start, *(point.quality for point in curve.points)]
    known = [(x, y) for x, y in zip(removed, values, strict=True) if y is not None]
    quality.plot(*zip(*known, strict=True), "o-", color="tab:green", markersize=5)
    quality.set_ylabel(quality_name(curve))
    quality.yaxis.set_major_formatter(PercentFormatter(1.0))
    for label, shares in _shares(curve).items():
        cost.plot(removed, shares, "o-", label=label, markersize=4)
    cost.set_ylabel("share of the original")
    cost.set_ylim(bottom=0)
    cost.yaxis.set_major_formatter(PercentFormatter(1.0))
    cost.legend(fontsize=8, frameon=False)
    scores = [(x, side.msrs) for x, side in zip(removed, sides, strict=True) if side.msrs is not None]
    if scores:
        redundancy.plot(*zip(*scores, strict=True), "o-", color="tab:purple", markersize=5)
    redundancy.set_ylabel("MSRS")
    redundancy.set_ylim(bottom=0)
    redundancy.set_xlabel(f"{curve.unit}s removed")
    redundancy.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (quality, cost, redundancy):
        axes.grid(axis="y", color="0.9")
        if curve.chosen is not None:
            axes.axvline(curve.points[curve.chosen].removed, color="tab:red", linewidth=1)
    if curve.chosen is not None:
        title += f"; the red line is the smallest within {curve.max_drop:.1%} loss"
    figure.align_ylabels([quality, cost, redundancy])
    figure.suptitle(fold_title(title), fontsize=11, parse_math=False)
    return figure


def _shares(curve: Curve) -> dict[str, list[float]]:
    """Costs of the original and all points as shares of the original's, by name."""
    prunings = [point.pruning for point in curve.points]
    costs = [(p.before.cost, p.after.cost) for p in prunings]
    found = {"parameters": [after.parameters / max(before.parameters, 1) for before, after in costs]}
    if costs[0][0].macs:
        found["MACs"] = [(after.macs or 0) / (before.macs or 1) for before, after in costs]
    # Each model was timed beside the original, which tells how busy the machine was then.
    found["latency p50"] = [p.after.latency.p50 / p.before.latency.p50 for p in prunings]
    return {name: [1.0, *shares] for name, shares in found.items()}

"""MSRS, accuracy and cost of a family of models side by side, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from redtest_onnx.ranking.candidate import Candidate, CostName
from redtest_onnx.report.figures import save_figure, short_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COST_LABELS: dict[CostName, str] = {
    "latency": "latency in ms",
    "parameters": "parameters",
    "macs": "MACs",
}


def save_family_figure(candidates: Sequence[Candidate], cost: CostName, path: Path) -> None:
    """Write the picture; the suffix of `path` tells the format (.png, .svg, .pdf)."""
    save_figure(draw_family(candidates, cost), path)


def draw_family(candidates: Sequence[Candidate], cost: CostName) -> Figure:
    """A column per model, from cheap to costly, and a panel each for MSRS, accuracy and cost.

    What RedTest shows of ResNets and VGGs (arXiv 2411.10507, figures 4 and 5): the score goes on rising where
    the accuracy no longer does. Models without a figure leave a gap.

    Args:
        candidates: measured models.
        cost: what is drawn as cost, and what they are sorted by.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    own = sorted(candidates, key=lambda one: (one.cost(cost) is None, one.cost(cost) or 0, one.name))
    figure = Figure(figsize=(min(max(6.0, 1.5 + 0.42 * len(own)), 24.0), 8.0), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    places = range(len(own))
    rows: list[tuple[str, list[float | None], str]] = [
        ("MSRS", [one.msrs for one in own], "tab:purple"),
        ("accuracy", [one.accuracy for one in own], "tab:green"),
        (COST_LABELS[cost], [one.cost(cost) for one in own], "tab:blue"),
    ]
    for axes, (label, values, colour) in zip(panels, rows, strict=True):
        known = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
        axes.plot(*zip(*known, strict=True), "o-", color=colour, markersize=5) if known else None
        axes.set_ylabel(label)
        axes.grid(axis="y", color="0.9")
        if not known:
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="0.4")
    panels[1].yaxis.set_major_formatter(PercentFormatter(1.0))
    if any(one.cost(cost) for one in own):
        panels[2].set_yscale("log")
    most = max(len(own) // 60, 1)
    shown = [place for place in places if place % most == 0]
    panels[2].set_xticks(
        shown,
        labels=[short_label(Path(own[place].name).name) for place in shown],
        rotation=90,
        fontsize=8,
        parse_math=False,
    )
    panels[2].set_xlim(-0.5, len(own) - 0.5)
    figure.align_ylabels(panels)
    figure.suptitle(f"{len(own)} models by {COST_LABELS[cost]}", fontsize=11)
    return figure

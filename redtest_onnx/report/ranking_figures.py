"""Pictures of rankings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redtest_onnx.ranking.candidate import CostName
from redtest_onnx.ranking.rank import Ranking, RankingEntry
from redtest_onnx.report.figures import place_labels, save_figure
from redtest_onnx.report.numbers import Show, count, milliseconds, plural
from redtest_onnx.report.rankings import measure_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_NAMES = 200
"""Candidates whose names are tried beside their points: many more never find room."""
_MOST_LABEL = 28
"""Letters of a name that is written beside its point; of longer ones the place in the ranking tells more."""
_AXES: dict[CostName, str] = {
    "latency": "latency",
    "parameters": "parameters",
    "macs": "MACs per sample",
}


def save_ranking_figure(ranking: Ranking, path: Path) -> None:
    """Write accuracy over cost; the suffix of `path` tells the format (.png, .svg, .pdf)."""
    save_figure(draw_ranking(ranking), path)


def draw_ranking(ranking: Ranking) -> Figure:
    """Accuracy over cost; beside it the best by each score, and how well measures tell the accuracy."""
    from matplotlib.figure import Figure

    beside: list[Callable[[Axes, Ranking], None]] = []
    if ranking.means:
        beside.append(_draw_means)
    if ranking.correlations:
        beside.append(_draw_correlations)
    figure = Figure(figsize=(13 if beside else 9, 6), layout="constrained")
    grid = figure.add_gridspec(
        max(len(beside), 1), 2 if beside else 1, width_ratios=[9, 4] if beside else None
    )
    axes = figure.add_subplot(grid[:, 0])
    for k, draw in enumerate(beside):
        draw(figure.add_subplot(grid[k, 1]), ranking)
    labels, points = _draw_candidates(axes, ranking)
    for _ in range(2):  # the layout settles at the second
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    place_labels(axes, labels, avoid=points)
    return figure


def _draw_means(axes: Axes, ranking: Ranking) -> None:
    """Mean accuracy over mean MSRS, or over mean cost, of the best by each score."""
    redundant = all(item.msrs is not None for item in ranking.means)
    cost = ranking.settings.cost
    name = "latency_ms" if cost == "latency" else cost
    for item in ranking.means:
        x = item.msrs if redundant else getattr(item, name)
        if x is None:
            continue
        axes.errorbar(x, item.accuracy, yerr=item.accuracy_error, fmt="o", capsize=3)
        axes.annotate(item.score, (x, item.accuracy), textcoords="offset points", xytext=(7, 5), fontsize=9)
    axes.margins(x=0.3, y=0.25)
    axes.set_xlabel("mean MSRS" if redundant else f"mean {_AXES[cost]}")
    axes.set_ylabel("mean accuracy")
    count = len(ranking.means[0].names)
    axes.set_title(f"best {count} of {plural(ranking.pool, 'candidate')} by each score", fontsize=10)


def _draw_correlations(axes: Axes, ranking: Ranking) -> None:
    """Three bars per measure."""
    kinds = ("Spearman", "Kendall", "Pearson")
    items = ranking.correlations[::-1]
    for k, kind in enumerate(kinds):
        places = [row + 0.27 * (1 - k) for row in range(len(items))]
        axes.barh(places, [getattr(item, kind.lower()) for item in items], height=0.25, label=kind)
    axes.set_yticks(range(len(items)), [measure_name(item.proxy) for item in items], fontsize=8)
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_xlim(-1, 1)
    axes.set_title("correlation with accuracy", fontsize=10)
    axes.legend(fontsize=7, frameon=False, loc="best")


def _draw_candidates(
    axes: Axes, ranking: Ranking
) -> tuple[list[tuple[float, float, str]], list[tuple[float, float]]]:
    """Accuracy over cost, coloured by MSRS, with a line along the front of accuracy and cost.

    Returns:
        Names for the points, the most important first, and the positions of all points.
    """
    cost = ranking.settings.cost
    rows = [row for row in ranking.rows if row.candidate.accuracy is not None and row.candidate.cost(cost)]
    x = [row.candidate.cost(cost) or 0.0 for row in rows]
    y = [row.candidate.accuracy or 0.0 for row in rows]
    colours: Any = [float("nan") if row.candidate.msrs is None else row.candidate.msrs for row in rows]
    axes.set_xscale("log")
    front = staircase(x, y)
    axes.plot(
        [x[i] for i in front], [y[i] for i in front], color="tab:red", linewidth=1.2, zorder=1,
        label=f"front of accuracy and {_AXES[cost]}",
    )  # fmt: skip
    points = axes.scatter(x, y, c=colours, cmap="viridis", s=26, plotnonfinite=True, zorder=2)
    pareto = [i for i, row in enumerate(rows) if row.pareto]
    axes.scatter(
        [x[i] for i in pareto],
        [y[i] for i in pareto],
        s=70,
        facecolors="none",
        edgecolors="tab:red",
        zorder=3,
        label="Pareto front of accuracy, cost and MSRS",
    )
    axes.margins(x=0.12, y=0.1)
    axes.set_xlabel(_AXES[cost])
    _shown_as(axes, milliseconds if cost == "latency" else count)
    axes.set_ylabel("accuracy")
    axes.set_title(f"{plural(len(rows), 'candidate')}, ranked by {ranking.settings.by}", fontsize=11)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    axes.figure.colorbar(points, ax=axes, label="MSRS")
    best = set(front)
    order = sorted(range(len(rows)), key=lambda i: (i not in best, rows[i].place))
    labels = [(x[i], y[i], candidate_label(rows[i])) for i in order]
    between = [
        (x[a] ** (1 - k / 10) * x[b] ** (k / 10), y[a] + (y[b] - y[a]) * k / 10)
        for a, b in pairwise(front)
        for k in range(1, 10)
    ]
    return labels[:_MOST_NAMES], [*zip(x, y, strict=True), *between]


def candidate_label(row: RankingEntry) -> str:
    """What stands beside the point of a candidate: its place, and its name where that is short."""
    name = Path(row.candidate.name).name
    return f"{row.place} {name}" if len(name) <= _MOST_LABEL else str(row.place)


def _shown_as(axes: Axes, show: Show) -> None:
    """Numbers of the logarithmic axis as tables show them, where matplotlib would write powers of ten."""
    from matplotlib.ticker import LogFormatterSciNotation

    class LogLabels(LogFormatterSciNotation):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return show(x) if super().__call__(x, pos) else ""

    axes.xaxis.set_major_formatter(LogLabels())
    axes.xaxis.set_minor_formatter(LogLabels(minor_thresholds=(1.5, 0.5)))


def staircase(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Indices of the points that no other beats in both, by rising cost.

    Args:
        x: costs; less is better.
        y: accuracies; more is better.
    """
    best, found = float("-inf"), []
    for i in sorted(range(len(x)), key=lambda i: (x[i], -y[i])):
        if y[i] > best:
            best = y[i]
            found.append(i)
    return found

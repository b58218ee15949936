"""Rankings of candidates: table, document, picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redtest_onnx.ranking.candidate import CostName
from redtest_onnx.ranking.rank import Ranking
from redtest_onnx.ranking.score import SCORES
from redtest_onnx.report.figures import place_labels, save_figure
from redtest_onnx.report.numbers import plural
from redtest_onnx.report.table import Cell, Column, Shown, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_AXES: dict[CostName, str] = {
    "latency": "latency in ms",
    "parameters": "parameters",
    "macs": "multiply-accumulates",
}


def ranking_table(ranking: Ranking, top: int | None = None) -> Table:
    """The first `top` candidates, or all; a star marks the Pareto front."""
    timed = any(row.candidate.latency_ms is not None for row in ranking.rows)
    columns = (
        Column("place", "#", "integer"),
        Column("name", "candidate", "name"),
        Column("accuracy", "accuracy", "share", drop=1, bar=True),
        Column("parameters", "parameters", "count", drop=5),
        Column("macs", "MACs", "count", drop=4),
        *[Column("latency_ms", "latency", "milliseconds", drop=3)] * timed,
        Column("layers", "layers", "integer", drop=7),
        Column("msrs", "MSRS", "decimal", drop=6),
        *(Column(kind, kind, "decimal", drop=2 if kind == ranking.settings.by else 8) for kind in SCORES),
        Column("pareto", "Pareto", drop=1),
    )
    rows = []
    for row in ranking.rows[:top]:
        c = row.candidate
        msrs = Shown(c.msrs, "-" if c.msrs is None else f"{c.msrs:.1f}")
        cells: list[Cell] = [row.place, c.name, c.accuracy, c.parameters, c.macs]
        cells += [c.latency_ms] * timed
        cells += [c.layers or None, msrs, *(row.scores[kind] for kind in SCORES), "*" if row.pareto else ""]
        rows.append(tuple(cells))
    return Table("ranking", "Candidates", columns, tuple(rows))


def save_ranking_figure(ranking: Ranking, path: Path) -> None:
    """Write accuracy over cost; the suffix of `path` tells the format (.png, .svg, .pdf)."""
    save_figure(draw_ranking(ranking), path)


def draw_ranking(ranking: Ranking) -> Figure:
    """Accuracy over cost, coloured by MSRS, with names and a line along the front of accuracy and cost."""
    from matplotlib.figure import Figure

    cost = ranking.settings.cost
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in ranking.rows if row.candidate.accuracy is not None and row.candidate.cost(cost)]
    x = [row.candidate.cost(cost) or 0.0 for row in rows]
    y = [row.candidate.accuracy or 0.0 for row in rows]
    colours: Any = [float("nan") if row.candidate.msrs is None else row.candidate.msrs for row in rows]
    axes.set_xscale("log")
    front = staircase(x, y)
    axes.plot(
        [x[i] for i in front], [y[i] for i in front], color="tab:red", linewidth=1.2, zorder=1,
        label=f"front of accuracy and {cost}",
    )  # fmt: skip
    points = axes.scatter(x, y, c=colours, cmap="viridis_r", s=26, plotnonfinite=True, zorder=2)
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
    axes.set_ylabel("accuracy")
    axes.set_title(f"{plural(len(rows), 'candidate')}, ranked by {ranking.settings.by}", fontsize=11)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    figure.colorbar(points, ax=axes, label="MSRS")
    order = sorted(range(len(rows)), key=lambda i: (i not in set(front), rows[i].place))
    labels = [(x[i], y[i], f"{rows[i].place} {Path(rows[i].candidate.name).name}") for i in order]
    place_labels(axes, labels, avoid=list(zip(x, y, strict=True)))
    return figure


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

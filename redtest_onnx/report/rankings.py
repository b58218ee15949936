"""Rankings of candidates: table, document, picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from redtest_onnx.graph.files import write_atomic
from redtest_onnx.ranking.candidate import CostName
from redtest_onnx.ranking.rank import Ranking
from redtest_onnx.ranking.score import SCORES
from redtest_onnx.report.tables import count

_AXES: dict[CostName, str] = {
    "latency": "latency in ms",
    "parameters": "parameters",
    "macs": "multiply-accumulates",
}


def ranking_table(ranking: Ranking, top: int) -> Table:
    """The first `top` candidates; a star marks the Pareto front."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("#", justify="right")
    table.add_column("candidate", overflow="fold")
    timed = any(row.candidate.latency_ms is not None for row in ranking.rows)
    columns = ["accuracy", "parameters", "MACs", *["latency"] * timed, "layers", "MSRS", *SCORES, "Pareto"]
    for name in columns:
        table.add_column(name, justify="right")
    for row in ranking.rows[:top]:
        c = row.candidate
        latency = [_optional(c.latency_ms, "{:.3f} ms")] * timed
        table.add_row(
            str(row.place),
            escape(c.name),
            _optional(c.accuracy, "{:.2%}"),
            count(c.parameters),
            count(c.macs),
            *latency,
            str(c.layers or "-"),
            _optional(c.msrs, "{:.1f}"),
            *(_optional(row.scores[kind], "{:.4f}") for kind in SCORES),
            "*" if row.pareto else "",
        )
    return table


def save_ranking_figure(ranking: Ranking, path: Path) -> None:
    """Accuracy over cost, coloured by MSRS, with the Pareto front and the best five marked."""
    from matplotlib.figure import Figure

    cost = ranking.settings.cost
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in ranking.rows if row.candidate.accuracy is not None and row.candidate.cost(cost)]
    x = [row.candidate.cost(cost) or 0.0 for row in rows]
    y = [row.candidate.accuracy or 0.0 for row in rows]
    colours: Any = [float("nan") if row.candidate.msrs is None else row.candidate.msrs for row in rows]
    points = axes.scatter(x, y, c=colours, cmap="viridis_r", s=22, plotnonfinite=True)
    front = [i for i, row in enumerate(rows) if row.pareto]
    axes.scatter(
        [x[i] for i in front],
        [y[i] for i in front],
        s=70,
        facecolors="none",
        edgecolors="tab:red",
        label="Pareto front (accuracy, cost, MSRS)",
    )
    for row, a, b in list(zip(rows, x, y, strict=True))[:5]:
        axes.annotate(str(row.place), (a, b), textcoords="offset points", xytext=(6, 4), fontsize=9)
    axes.set_xscale("log")
    axes.set_xlabel(_AXES[cost])
    axes.set_ylabel("accuracy")
    axes.set_title(f"{len(rows)} candidates, numbers are places by {ranking.settings.by}", fontsize=11)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    figure.colorbar(points, ax=axes, label="MSRS")
    suffix = path.suffix.lstrip(".") or "png"
    write_atomic(path, lambda target: figure.savefig(target, format=suffix, dpi=160))


def _optional(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)

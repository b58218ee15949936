"""MSRS over samples, alpha and threshold: table and picture."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from redtest_onnx.metrics.cka import Estimator
from redtest_onnx.report.figures import save_figure
from redtest_onnx.report.table import Column, Shown, Table
from redtest_onnx.similarity.sweep import Choice, Sweep, ThresholdProposal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CHOICES: tuple[tuple[Choice, str], ...] = (
    ("samples", "samples per batch"),
    ("alpha", "alpha"),
    ("threshold", "threshold"),
)
_LINES: tuple[tuple[Estimator, str], ...] = (
    ("minibatch", "one ratio of sums over batches"),
    ("paper", "mean over batches (RedTest)"),
    ("biased", "biased"),
)


def sweep_table(sweep: Sweep) -> Table:
    """A row per value, with the score and its spread for each estimator."""
    columns = [Column("choice", "choice", "name"), Column("value", "value", "decimal")]
    for estimator, _ in _LINES:
        columns.append(Column(estimator, estimator, "decimal"))
        columns.append(Column(f"{estimator}_std", "std", "decimal", drop=1))
    rows = []
    for choice, _ in _CHOICES:
        lines = [sweep.of(choice, estimator) for estimator, _ in _LINES]
        for points in zip(*lines, strict=True):
            value = points[0].value
            cells = [_tenths(x) for point in points for x in (point.msrs, point.std)]
            rows.append((choice, Shown(value, "inf" if value == inf else f"{value:g}"), *cells))
    return Table("sweep", "MSRS over what is to be chosen", tuple(columns), tuple(rows))


def proposal_words(proposal: ThresholdProposal) -> str:
    """The proposed threshold and what follows from it."""
    return (
        f"Proposed threshold {proposal.threshold:g}: the lowest at which {proposal.small} has no "
        f"redundant pair (MSRS {proposal.small_msrs:.2f}); there the model's MSRS is {proposal.msrs:.1f}."
    )


def save_sweep_figure(sweep: Sweep, path: Path, proposal: ThresholdProposal | None = None) -> None:
    """Write the picture; the suffix of `path` tells the format (.png, .svg, .pdf)."""
    save_figure(draw_sweep(sweep, proposal), path)


def draw_sweep(sweep: Sweep, proposal: ThresholdProposal | None = None) -> Figure:
    """Three panels, a line per estimator; bands are one standard deviation over batches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    for axes, (choice, title) in zip(figure.subplots(1, 3), _CHOICES, strict=True):
        _draw(axes, sweep, choice)
        axes.set_xlabel(title)
        axes.set_ylabel("MSRS")
    panels = figure.axes
    panels[0].set_xscale("log", base=2)
    sizes = [point.value for point in sweep.of("samples", "minibatch")]
    panels[0].set_xticks(sizes, [f"{size:g}" for size in sizes])
    used = sweep.settings
    for axes, value in ((panels[0], used.samples), (panels[2], used.threshold)):
        if value is not None:
            axes.axvline(value, color="0.6", linewidth=0.8, linestyle=":")
    if proposal is not None:
        panels[2].axvline(proposal.threshold, color="tab:red", linewidth=1, label="proposed")
    panels[2].legend(fontsize=8, frameon=False)
    return figure


def _draw(axes: Axes, sweep: Sweep, choice: Choice) -> None:
    for estimator, label in _LINES:
        points = sweep.of(choice, estimator)
        steps = choice == "alpha"  # the last is infinite: values stand at equal distances
        x = [float(k) for k in range(len(points))] if steps else [point.value for point in points]
        y = [point.msrs for point in points]
        (line,) = axes.plot(x, y, marker="o", markersize=3, linewidth=1.2, label=label)
        spread = [point.std or 0.0 for point in points]
        low = [value - std for value, std in zip(y, spread, strict=True)]
        high = [value + std for value, std in zip(y, spread, strict=True)]
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        if steps:
            names = ["step" if point.value == inf else f"{point.value:g}" for point in points]
            axes.set_xticks(x, names)


def _tenths(value: float | None) -> Shown:
    return Shown(value, "-" if value is None or value != value else f"{value:.1f}")

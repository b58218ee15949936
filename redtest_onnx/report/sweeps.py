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

_CHOICES: dict[Choice, str] = {"samples": "samples per batch", "alpha": "alpha", "threshold": "threshold"}
_LINES: dict[Estimator, str] = {
    "minibatch": "one ratio of sums over batches",
    "paper": "mean over batches (RedTest)",
    "biased": "biased",
    "exact": "all samples at once",
}


def sweep_table(sweep: Sweep) -> Table:
    """A row per value, with the score and its spread for each estimator."""
    columns = [Column("choice", "choice", "name"), Column("value", "value", "decimal")]
    for estimator in sweep.estimators:
        columns.append(Column(estimator, estimator, "decimal"))
        columns.append(Column(f"{estimator}_std", "std", "decimal", drop=1))
    rows = []
    for choice in sweep.choices:
        lines = [sweep.of(choice, estimator) for estimator in sweep.estimators]
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
    """A panel per choice, a line per estimator; bands are one standard deviation over batches."""
    from matplotlib.figure import Figure

    count = len(sweep.choices)
    figure = Figure(figsize=(13 * count / 3, 4.2), layout="constrained")
    panels = dict(zip(sweep.choices, figure.subplots(1, count, squeeze=False)[0], strict=True))
    for choice, axes in panels.items():
        _draw(axes, sweep, choice)
        axes.set_xlabel(_CHOICES[choice])
        axes.set_ylabel("MSRS")
    used: dict[Choice, float | None] = {
        "samples": sweep.settings.samples,
        "threshold": sweep.settings.threshold,
    }
    for choice, value in used.items():
        if choice in panels and value is not None:
            panels[choice].axvline(value, color="0.6", linewidth=0.8, linestyle=":")
    if proposal is not None:
        panels["threshold"].axvline(proposal.threshold, color="tab:red", linewidth=1, label="proposed")
    panels["threshold"].legend(fontsize=8, frameon=False)
    return figure


def _draw(axes: Axes, sweep: Sweep, choice: Choice) -> None:
    for estimator in sweep.estimators:
        points = sweep.of(choice, estimator)
        steps = choice == "alpha"  # the last is infinite: values stand at equal distances
        x = [float(k) for k in range(len(points))] if steps else [point.value for point in points]
        y = [point.msrs for point in points]
        (line,) = axes.plot(x, y, marker="o", markersize=3, linewidth=1.2, label=_LINES[estimator])
        spread = [point.std or 0.0 for point in points]
        low = [value - std for value, std in zip(y, spread, strict=True)]
        high = [value + std for value, std in zip(y, spread, strict=True)]
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        if steps:
            axes.set_xticks(x, ["step" if point.value == inf else f"{point.value:g}" for point in points])
    if choice == "samples":
        sizes = [point.value for point in sweep.of(choice, sweep.estimators[0])]
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])


def _tenths(value: float | None) -> Shown:
    return Shown(value, "-" if value is None or value != value else f"{value:.1f}")

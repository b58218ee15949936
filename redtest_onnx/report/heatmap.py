"""The similarity matrix as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from redtest_onnx.report.figures import figure_svg, save_figure
from redtest_onnx.similarity.analyze import Analysis
from redtest_onnx.text import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_LABELS = 40


def save_heatmap(analysis: Analysis, title: str, path: Path) -> None:
    """Write the heat map; the suffix of `path` tells the format (.png, .svg, .pdf)."""
    save_figure(draw_heatmap(analysis, title), path)


def heatmap_svg(analysis: Analysis, title: str) -> str:
    """The heat map as SVG text without XML header, for pages."""
    return figure_svg(draw_heatmap(analysis, title))


def draw_heatmap(analysis: Analysis, title: str) -> Figure:
    """CKA of all pairs of layers above, similarity of neighbours below, on one axis of layers."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    count = len(analysis.layers)
    figure = Figure(figsize=(8.2, 9.4), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[5, 1])
    similarity = np.ma.masked_invalid(analysis.similarity)
    colours = colormaps["magma"].with_extremes(bad="0.8")
    image = above.imshow(similarity, vmin=0, vmax=1, cmap=colours, interpolation="nearest")
    redundancy = analysis.redundancy
    score = f"{redundancy.value:.1f}" if redundancy.pairs else "undefined, none"
    above.set_title(
        f"{plain(title)}\nMSRS {score} of {redundancy.pairs} pairs "
        f"(threshold {redundancy.threshold:g}), {analysis.batches} x {analysis.samples} samples"
        + (", synthetic inputs" if analysis.synthetic else ""),
        fontsize=11,
        parse_math=False,  # names may hold dollar signs
    )
    step = max(1, -(-count // _MOST_LABELS))
    ticks = range(0, count, step)
    names = [f"{plain(analysis.layers[k].name)}  {k}" for k in ticks]
    above.set_yticks(ticks, labels=[name[-34:] for name in names], fontsize=7, parse_math=False)
    above.set_xticks(ticks, labels=[str(k) for k in ticks], fontsize=7)
    figure.colorbar(image, ax=above, label="unbiased CKA", shrink=0.8)
    _draw_neighbours(below, analysis, ticks)
    return figure


def _draw_neighbours(axes: object, analysis: Analysis, ticks: range) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    removable = np.array([layer.removable for layer in analysis.layers[1:]])
    places = np.arange(1, len(analysis.layers))
    values = np.array(analysis.adjacent)
    axes.plot(places, values, color="0.6", linewidth=1)
    axes.scatter(places[removable], values[removable], color="tab:red", s=18, label="can be removed")
    axes.scatter(places[~removable], values[~removable], color="0.3", s=18, label="must stay")
    axes.axhline(analysis.redundancy.threshold, color="0.5", linestyle=":", linewidth=1)
    axes.set_xticks(ticks, labels=[str(k) for k in ticks], fontsize=7)
    axes.set_xlabel("layer")
    axes.set_ylabel("similarity to\nthe layer before", fontsize=8)
    axes.legend(fontsize=7, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)

"""The similarity matrix as a picture."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from redtest_onnx.report.figures import fold_title, save_figure, shown_labels
from redtest_onnx.report.numbers import msrs, plural
from redtest_onnx.similarity.analyze import Analysis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARK = "#d62728"


def save_heatmap(analysis: Analysis, title: str, path: Path, removed: Collection[str] = ()) -> None:
    """Write the heat map; the suffix of `path` tells the format (.png, .svg, .pdf)."""
    save_figure(draw_heatmap(analysis, title, removed), path)


def draw_heatmap(analysis: Analysis, title: str, removed: Collection[str] = ()) -> Figure:
    """CKA of all pairs of layers above, similarity of neighbours below, on one axis of layers.

    Args:
        analysis: what was measured.
        title: of the figure.
        removed: names of layers that are to be marked as removed.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(9.0, 9.8), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[5, 1], sharex=True)
    similarity = np.ma.masked_invalid(analysis.similarity)
    colours = colormaps["viridis"].with_extremes(bad="0.8")
    image = above.imshow(similarity, vmin=0, vmax=1, cmap=colours, interpolation="nearest", aspect="auto")
    redundancy = analysis.redundancy
    figure.suptitle(
        fold_title(
            f"{title}\nMSRS {msrs(redundancy.value)} of {redundancy.pairs} pairs "
            f"(threshold {redundancy.threshold:g}), {analysis.batches} x {analysis.samples} samples"
            + (", synthetic inputs" if analysis.synthetic else "")
            + (f"; {plural(len(removed), 'layer')} marked for removal" if removed else "")
        ),
        fontsize=11,
        parse_math=False,  # names may hold dollar signs
    )
    labels = shown_labels([layer.name for layer in analysis.layers])
    above.set_yticks(
        [k for k, _ in labels], labels=[name for _, name in labels], fontsize=7, parse_math=False
    )
    above.tick_params(labelbottom=False)
    figure.colorbar(image, ax=above, label="unbiased CKA", shrink=0.8, pad=0.02)
    marked = [k for k, layer in enumerate(analysis.layers) if layer.name in removed]
    for text, (k, _) in zip(above.get_yticklabels(), labels, strict=True):
        text.set_color(_MARK if k in marked else "black")
    for k in marked:
        # The pair with the layer before, on both sides of the diagonal, and the layer itself.
        above.add_patch(Rectangle((k - 1.5, k - 1.5), 2, 2, fill=False, edgecolor=_MARK, linewidth=1.4))
    _draw_neighbours(below, analysis, marked)
    return figure


def _draw_neighbours(axes: object, analysis: Analysis, marked: Collection[int]) -> None:
    from matplotlib.axes import Axes
    from matplotlib.ticker import MaxNLocator

    assert isinstance(axes, Axes)
    removable = np.array([layer.removable for layer in analysis.layers[1:]])
    places = np.arange(1, len(analysis.layers))
    values = np.array(analysis.adjacent)
    axes.plot(places, values, color="0.6", linewidth=1)
    axes.scatter(places[removable], values[removable], color="tab:red", s=18, label="can be removed")
    axes.scatter(places[~removable], values[~removable], color="0.3", s=18, label="must stay")
    if marked:
        values_of = [values[k - 1] for k in marked if k]
        places_of = [k for k in marked if k]
        axes.scatter(places_of, values_of, color="black", marker="x", s=42, label="removed")
    axes.axhline(analysis.redundancy.threshold, color="0.5", linestyle=":", linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=20, integer=True))
    axes.tick_params(labelsize=7)
    axes.set_xlabel("layer")
    axes.set_ylabel("similarity to\nthe layer before", fontsize=8)
    axes.legend(fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)

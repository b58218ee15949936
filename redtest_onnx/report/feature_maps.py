"""Feature maps of similar layers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from redtest_onnx.report.figures import fold_title, save_figure, short_label
from redtest_onnx.similarity.feature_maps import FeatureMapPair

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_feature_maps(pairs: Sequence[FeatureMapPair], title: str, path: Path) -> None:
    """Write the picture; the suffix of `path` tells the format (.png, .svg, .pdf)."""
    save_figure(draw_feature_maps(pairs, title), path)


def draw_feature_maps(pairs: Sequence[FeatureMapPair], title: str) -> Figure:
    """Two rows per pair of layers, a column per channel (RedTest, arXiv 2411.10507, figure 1).

    Args:
        pairs: what to draw, the least similar pair last.
        title: of the figure.
    """
    from matplotlib.figure import Figure

    columns = max(max(len(maps) for maps in pair.maps) for pair in pairs)
    figure = Figure(figsize=(2.6 + 0.95 * columns, 0.9 + 2.35 * len(pairs)), layout="constrained")
    figure.suptitle(fold_title(title), fontsize=11, parse_math=False)
    for part, pair in zip(figure.subfigures(len(pairs), 1, squeeze=False)[:, 0], pairs, strict=True):
        part.suptitle(f"unbiased CKA {pair.similarity:.3f}", fontsize=9)
        grid = part.subplots(2, columns, squeeze=False)
        for row, (layer, maps) in enumerate(zip((pair.before, pair.after), pair.maps, strict=True)):
            for column, axes in enumerate(grid[row]):
                axes.set(xticks=[], yticks=[])
                if column < len(maps):
                    axes.imshow(maps[column], cmap="viridis", interpolation="nearest")
                    axes.set_xlabel(str(pair.channels[row, column]), fontsize=6, labelpad=1)
                else:
                    axes.set_axis_off()
            grid[row, 0].set_ylabel(
                short_label(layer.name),
                fontsize=8,
                rotation=0,
                ha="right",
                va="center",
                parse_math=False,
            )
    return figure

"""What `sparsity` found in the weights of a model: table, words, JSON, figure and page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from redtest_onnx.report.figures import figure_svg
from redtest_onnx.report.html import save_rendered
from redtest_onnx.report.tables import count
from redtest_onnx.weight_sparsity.measure import Sparsity, TensorSparsity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_LABELS = 30
_UNDEFINED = "undefined"


def sparsity_table(sparsity: Sparsity) -> Table:
    """One row a tensor: its index, what its bound retains, and the middle half of its neurons."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("tensor", "operator", "shape"):
        table.add_column(name, overflow="fold")
    for name in ("weights", "zeros"):
        table.add_column(name, justify="right")
    for group in sparsity.overall:
        table.add_column(f"PQI p={group.p:g} q={group.q:g}", justify="right")
        table.add_column("retained", justify="right")
        table.add_column("neurons", justify="right")
    for tensor in sparsity.tensors:
        table.add_row(*map(escape, _cells(tensor)))
    return table


def sparsity_words(sparsity: Sparsity) -> list[str]:
    """The result in a practitioner's words."""
    lines = [
        f"{sparsity.elements:,} weights in {len(sparsity.tensors)} tensors, "
        f"{sparsity.zeros:,} of them exactly zero. PQ Index: 0 where all weights of a group have the same "
        "magnitude, towards 1 the fewer weights carry it. Neurons: the middle half of them."
    ]
    for k, group in enumerate(sparsity.overall):
        if math.isnan(group.index):
            lines.append(f"p={group.p:g}, q={group.q:g}: undefined, since all weights are zero.")
            continue
        shares = ", ".join(f"{share:.1%} per {scope}" for scope, share in sparsity.retained(k).items())
        lines.append(
            f"p={group.p:g}, q={group.q:g}: {group.index:.4f} over all weights. To keep their "
            f"{group.q:g}-norm the bound retains {shares.replace('per global', 'as one group')}; "
            f"up to {1 - group.retained / sparsity.elements:.0%} are candidates for pruning."
        )
    lines.append(
        "The bound says how many weights may be spared, not what the model loses without them: try "
        "--method one-shot (no training), or --method sap (prunes by this bound and trains in between)."
    )
    lines.extend(f"Not measured: {item.name} ({item.operator}): {item.reason}." for item in sparsity.skipped)
    return lines


def save_sparsity_page(sparsity: Sparsity, title: str, path: Path) -> None:
    """Write a page with the figure and all tensors."""
    save_rendered(
        path,
        "sparsity.html.j2",
        title=title,
        words=sparsity_words(sparsity),
        figure=figure_svg(draw_sparsity(sparsity, title)),
        pairs=[f"p={group.p:g} q={group.q:g}" for group in sparsity.overall],
        rows=[_cells(tensor) for tensor in sparsity.tensors],
    )


def draw_sparsity(sparsity: Sparsity, title: str) -> Figure:
    """PQ Index of every tensor above, magnitudes of all weights below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 7.6), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[3, 2])
    above.set_title(
        f"{title}: {count(sparsity.elements)} weights, {sparsity.zeros / sparsity.elements:.1%} zeros",
        fontsize=11,
        parse_math=False,  # names may hold dollar signs
    )
    _draw_tensors(above, sparsity)
    histogram = sparsity.histogram
    below.stairs(histogram.counts, histogram.edges, fill=True, color="#b63679")
    filled = np.flatnonzero(histogram.counts)
    if filled.size:
        below.set_xlim(histogram.edges[filled[0]] - 0.2, histogram.edges[filled[-1] + 1] + 0.2)
    below.set_xlabel("log10 of the magnitude of a weight (zeros are not shown)")
    below.set_ylabel("weights")
    return figure


def _draw_tensors(axes: Axes, sparsity: Sparsity) -> None:
    places = np.arange(len(sparsity.tensors))
    for k, group in enumerate(sparsity.overall):
        colour = f"C{k}"
        index = [tensor.groups[k].index for tensor in sparsity.tensors]
        low, high = ([tensor.neurons[k].quantiles[at] for tensor in sparsity.tensors] for at in (1, 3))
        axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(places, index, ".-", color=colour, label=f"p={group.p:g}, q={group.q:g}")
        axes.axhline(group.index, color=colour, linestyle=":", linewidth=1)
    step = max(1, -(-len(places) // _MOST_LABELS))
    names = [tensor.name[-24:] for tensor in sparsity.tensors[::step]]
    axes.set_xticks(places[::step], labels=names, rotation=90, fontsize=6, parse_math=False)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("PQ Index (band: middle half of neurons)", fontsize=8)
    axes.legend(fontsize=8, frameon=False)


def _cells(tensor: TensorSparsity) -> list[str]:
    cells = [
        tensor.name,
        f"{tensor.kind} ({tensor.dtype})" if tensor.dtype != "float" else tensor.kind,
        "x".join(map(str, tensor.shape)),
        f"{tensor.elements:,}",
        f"{tensor.zeros / tensor.elements:.1%}",
    ]
    for group, neurons in zip(tensor.groups, tensor.neurons, strict=True):
        cells.append(_UNDEFINED if math.isnan(group.index) else f"{group.index:.4f}")
        cells.append(f"{group.retained / tensor.elements:.1%}")
        _, low, _, high, _ = neurons.quantiles
        cells.append(_UNDEFINED if math.isnan(low) else f"{low:.2f}-{high:.2f}")
    return cells

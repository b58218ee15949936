"""What `sparsity` found in the weights of a model: table, words, JSON and figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from redtest_onnx.report.figures import fold_title, shown_labels
from redtest_onnx.report.numbers import count, plural
from redtest_onnx.report.table import Cell, Column, Table
from redtest_onnx.weight_sparsity.measure import Sparsity, TensorSparsity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_LABELS = 30
_UNDEFINED = "undefined"


def sparsity_table(sparsity: Sparsity) -> Table:
    """One row a tensor: its index, what its bound retains, and the middle half of its neurons."""
    columns = [
        Column("tensor", "tensor", "name"),
        Column("operator", "operator", drop=6),
        Column("shape", "shape", drop=5),
        Column("weights", "weights", "integer", drop=2),
        Column("zeros", "zeros", "share", drop=3),
    ]
    for group in sparsity.overall:
        pair, label = f"p{group.p:g}_q{group.q:g}", f"p={group.p:g} q={group.q:g}"
        columns += [
            Column(f"pq_index_{pair}", f"PQI {label}", "decimal", drop=1, bar=True),
            Column(f"retained_{pair}", f"retained {label}", "share", drop=4),
            Column(f"neurons_{pair}", f"neurons {label}", drop=7),
        ]
    return Table("tensors", "Tensors", tuple(columns), tuple(map(_cells, sparsity.tensors)))


def sparsity_words(sparsity: Sparsity) -> list[str]:
    """The result in a practitioner's words."""
    lines = [
        f"{plural(sparsity.elements, 'weight')} in {plural(len(sparsity.tensors), 'tensor')}, "
        f"{sparsity.zeros:,} of them exactly zero. The PQ Index is 0 where all weights of a group have the "
        "same magnitude, and nearly 1 where few hold nearly all of it. For neurons the range of the middle "
        "half is given."
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


def draw_sparsity(sparsity: Sparsity, title: str) -> Figure:
    """PQ Index of every tensor above, magnitudes of all weights below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 8.4), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[3, 2])
    zeros = f"{sparsity.zeros / sparsity.elements:.1%} zeros"
    figure.suptitle(
        fold_title(f"{title}: {count(sparsity.elements)} weights, {zeros}"),
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
    labels = shown_labels([tensor.name for tensor in sparsity.tensors], _MOST_LABELS)
    axes.set_xticks(
        [k for k, _ in labels], labels=[name for _, name in labels], rotation=90, fontsize=7, parse_math=False
    )
    axes.set_ylim(bottom=0)
    axes.set_ylabel("PQ Index (band: middle half of neurons)", fontsize=8)
    axes.legend(fontsize=8, frameon=False)


def _cells(tensor: TensorSparsity) -> tuple[Cell, ...]:
    cells: list[Cell] = [
        tensor.name,
        f"{tensor.kind} ({tensor.dtype})" if tensor.dtype != "float" else tensor.kind,
        "x".join(map(str, tensor.shape)),
        tensor.elements,
        tensor.zeros / tensor.elements,
    ]
    for group, neurons in zip(tensor.groups, tensor.neurons, strict=True):
        _, low, _, high, _ = neurons.quantiles
        cells += [group.index, group.retained / tensor.elements]
        cells.append(_UNDEFINED if math.isnan(low) else f"{low:.2f}-{high:.2f}")
    return tuple(cells)

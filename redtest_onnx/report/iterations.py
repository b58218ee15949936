"""What pruning weights in turns with training did, iteration by iteration, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redtest_onnx.report.figures import fold_title
from redtest_onnx.weight_sparsity.iterative.iterative import IterativePruning
from redtest_onnx.weight_sparsity.measure import Pair

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_iterations(found: IterativePruning, pairs: tuple[Pair, ...], title: str) -> Figure:
    """PQ Index of the weights that are left, accuracy, and their share, over the iterations of a run.

    The hypothesis of SAP (Diao et al., arXiv 2302.05601) is told by the first panel: the index falls, rises
    where no more can be spared, and falls again when the network collapses.

    Args:
        found: the run.
        pairs: exponents of the index, in the order of the records.
        title: of the figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(7.5, 8.0), layout="constrained")
    index, accuracy, left = figure.subplots(3, 1, sharex=True)
    numbers = [record.number for record in found.iterations]
    for k, (p, q) in enumerate(pairs):
        found_index = [record.pq_index[k]["global"] for record in found.iterations]
        index.plot(numbers, found_index, ".-", label=f"p={p:g}, q={q:g}")
    index.set_ylabel("PQ Index of what is left")
    index.legend(fontsize=8, frameon=False)
    values = [record.accuracy for record in found.iterations]
    accuracy.plot(numbers, values, ".-", color="tab:green")
    low, high = min(*values, found.reference), max(*values, found.reference)
    room = max(0.08 * (high - low), 0.005)  # equal values need an axis, too
    accuracy.set_ylim(low - room, high + room)
    accuracy.axhline(
        found.reference, color="0.5", linestyle=":", linewidth=1, label="what it is held against"
    )
    accuracy.set_ylabel("validation accuracy")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    left.plot(numbers, [r.kept / r.weights for r in found.iterations], ".-", color="tab:purple")
    left.set_ylabel("weights left")
    left.set_yscale("log")
    left.yaxis.set_major_formatter(PercentFormatter(1.0))
    left.yaxis.set_minor_formatter(PercentFormatter(1.0))
    left.tick_params(which="both", labelsize=8)
    left.set_xlabel("iteration (0: dense training)")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (index, accuracy, left):
        axes.axvline(found.chosen.number, color="tab:red", linewidth=1, label="written")
    accuracy.legend(fontsize=8, frameon=False)
    figure.suptitle(fold_title(title), fontsize=11, parse_math=False)
    return figure

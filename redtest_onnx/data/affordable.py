"""How many synthetic samples a model is worth: noise tells little, and a large model is slow."""

from __future__ import annotations

from collections.abc import Mapping

from redtest_onnx.graph.cost import count_macs, count_parameters
from redtest_onnx.graph.index import GraphIndex, index_of
from redtest_onnx.graph.model import Model, tensor_elements
from redtest_onnx.graph.shapes import Shape, Shapes, infer_shapes

MOST, LEAST = 2560, 96
_BUDGET = 5 * 10**11  # multiply-accumulates for all samples: half a minute of one core
_USES = 16  # of a weight for a sample, where no sizes tell it


def affordable_samples(model: Model, sizes: Mapping[str, Shape]) -> int:
    """As many samples as a run over all of them is quick; the same for each machine.

    Args:
        model: the model.
        sizes: of its inputs, for one sample.
    """
    index = index_of(model)
    macs = _estimated_macs(index, infer_shapes(model, sizes)) or _USES * count_parameters(index)
    return max(LEAST, min(MOST, _BUDGET // max(macs, 1)))


def _estimated_macs(index: GraphIndex, shapes: Shapes) -> int:
    """Multiply-accumulates; where unknown, weights are used as often as those of the last known operator."""
    total, uses = 0, _USES
    for i, node in enumerate(index.nodes):
        macs = count_macs(index, shapes, [i])
        stored = (index.initializers[name].dims for name in node.input if name in index.initializers)
        weights = max(map(tensor_elements, stored), default=0)
        if macs and weights:
            uses = max(1, macs // weights)
        total += uses * (weights or count_parameters(index, [i])) if macs is None else macs
    return total

"""How many synthetic samples a model is worth: noise tells little, and a large model is slow."""

from __future__ import annotations

from collections.abc import Mapping

from redtest_onnx.graph.cost import count_macs, count_parameters
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import Shape, infer_shapes

MOST, LEAST = 2560, 96
_BUDGET = 5 * 10**11  # multiply-accumulates for all samples: half a minute of one core
_USES = 16  # of a weight for a sample, where sizes that would tell it are unknown


def affordable_samples(model: Model, sizes: Mapping[str, Shape]) -> int:
    """As many samples as a run over all of them is quick; the same for each machine.

    Args:
        model: the model.
        sizes: of its inputs, for one sample.
    """
    index = index_of(model)
    macs = count_macs(index, infer_shapes(model, sizes)) or _USES * count_parameters(index)
    return max(LEAST, min(MOST, _BUDGET // max(macs, 1)))

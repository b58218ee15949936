"""Which stored tensors are trained: weights, as opposed to settings, tables, statistics and constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from redtest_onnx.bridge.dtypes import TRAINABLE
from redtest_onnx.bridge.prepare import PreparedGraph
from redtest_onnx.bridge.registry import find, normalised
from redtest_onnx.bridge.stored import StoredTensor
from redtest_onnx.graph.index import captured
from redtest_onnx.graph.model import Model, subgraphs, tensor_elements

# Operators that pass weights on unchanged, so that what they read is what the next operator applies.
_CARRIERS = frozenset(
    {
        "Identity",
        "Cast",
        "Reshape",
        "Flatten",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Split",
        "Concat",
    }
)
_STATISTICS = (3, 4)
# Beyond float16's largest number stands no weight; masks are filled with such values.
_MASK = 6e4


@dataclass(frozen=True)
class Roles:
    """Names of stored tensors by what training does with them; all others are constants.

    Attributes:
        parameters: trained by gradients.
        statistics: running means and variances of batch normalisation.
    """

    parameters: frozenset[str]
    statistics: frozenset[str]


def assign_roles(model: Model, prepared: PreparedGraph) -> Roles:
    """Decide what is trained.

    A float tensor is a parameter if it reaches an output and

    * stands where an operator by its definition has weights (the filter and bias of a convolution, the scale
      of a normalisation, an embedding table), directly or behind a reshape, or
    * is an initializer with more than one element (a position embedding, a class token), unless it is a
      setting (the bounds of a clip, the sizes of a resize, an initial state), is only compared, or holds the
      infinities of a mask.

    The rest stays constant: single numbers such as attention scales and epsilons, Constant nodes that are
    no operator's weights (anchors, priors), integer tables.
    """
    flow = _Flow(prepared)
    statistics = {name for name in flow.statistics if name in prepared.stored}
    parameters = {
        name
        for name, item in prepared.stored.items()
        if item.tensor.data_type in TRAINABLE
        and name in prepared.writable
        and name not in statistics
        and (name in flow.weights or (name in flow.operands and _is_free(model, item)))
    }
    return Roles(frozenset(parameters), frozenset(statistics))


def _is_free(model: Model, item: StoredTensor) -> bool:
    """Whether a tensor without a role by definition is trained."""
    if item.node is not None or tensor_elements(item.tensor.dims) <= 1:
        return False
    values = model.value(item.tensor).astype(np.float64)
    return bool(np.isfinite(values).all()) and bool(np.abs(values).max() < _MASK)


class _Flow:
    """Follows a graph from its outputs backwards.

    Attributes:
        weights: names that stand where operators have weights.
        operands: names that gradients reach in other places.
        statistics: running statistics of batch normalisation.
    """

    def __init__(self, prepared: PreparedGraph) -> None:
        self.opsets: Mapping[str, int] = prepared.opsets
        self.weights: set[str] = set()
        self.operands: set[str] = set()
        self.statistics: set[str] = set()
        self._used: set[str] = set()
        self._visit(prepared.graph)

    def _visit(self, graph: onnx.GraphProto) -> None:
        outputs = {value.name for value in graph.output}
        self._used |= outputs
        self.operands |= outputs
        for node in reversed(graph.node):
            if not self._used.isdisjoint(node.output):
                self._visit_node(node)

    def _visit_node(self, node: onnx.NodeProto) -> None:
        operator = find(node.domain, node.op_type, self.opsets[normalised(node.domain)])
        if operator is None:
            return
        for child in subgraphs([node]):
            self._visit(child)
        inner = [name for child in subgraphs([node]) for name in captured(child)]
        self._used.update(name for name in (*node.input, *inner) if name)
        reached = operator.differentiable and not self.operands.isdisjoint(node.output)
        carried = node.op_type in _CARRIERS and not self.weights.isdisjoint(node.output)
        for position, name in enumerate(node.input):
            if position in operator.weights or (carried and position not in operator.fixed):
                self.weights.add(name)
            elif node.op_type == "BatchNormalization" and position in _STATISTICS:
                self.statistics.add(name)
            if reached and position not in operator.fixed:
                self.operands.add(name)

"""Whether the order in which a model picks its best candidates reaches an output, or is summed up inside.

A detector gives its best rows in order: they are judged in front of the choice. A mixture of experts sums
over the experts it picks, a network over nearest neighbours takes their maximum: the output does not depend
on the order and is judged as any other. A run in which TopK gives its choice backwards tells these apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from redtest_onnx.errors import InputError
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.probe.taps import build_reversed_picks
from redtest_onnx.runtime.outputs.rows import picks_by_value
from redtest_onnx.runtime.session import Session

if TYPE_CHECKING:
    from redtest_onnx.runtime.workbench import Workbench

_OPSET = 10  # slices go backwards from here on
_ROUNDING = {2: 3e-2}  # by bytes of a value, as a share of the largest: sums in another order
_LEAST_ROUNDING = 1e-3


def orderless_picks(bench: Workbench) -> Mapping[str, frozenset[int]]:
    """The TopK nodes whose order doesn't reach an output, by output; without those where that can't be told.

    Args:
        bench: the model and the sample it is run on.
    """
    model, index = bench.view.model, bench.index
    picks = {i for i, node in enumerate(index.nodes) if node.op_type == "TopK" and picks_by_value(index, i)}
    picks = {i for i in picks if not _picked_again(index, i)}
    if not picks or model.opsets.get("ai.onnx", 0) < _OPSET:
        return {}
    try:
        plain = Session(model, bench.options, use="once").run(bench.sample)
        found: dict[str, frozenset[int]] = {}
        # Choices inside the network first: one at its end, such as the best boxes, has an order of its own.
        for tried in (frozenset(picks), frozenset(i for i in picks if _weighted_behind(index, i))):
            if tried and tried not in found.values():
                other = build_reversed_picks(model, tried)
                turned = Session(other, bench.options, use="once").run(bench.sample)
                found = {
                    name: tried for name in plain if name not in found and _same(plain[name], turned[name])
                } | found
            if len(found) == len(plain):
                break
    except InputError:
        return {}
    return found


def _behind(index: GraphIndex, start: int) -> set[int]:
    """Nodes that a node's values reach."""
    reached, found = set(index.nodes[start].output), set[int]()
    for i in range(start + 1, len(index.nodes)):
        if not reached.isdisjoint(index.reads[i]):
            found.add(i)
            reached.update(name for name in index.nodes[i].output if name)
    return found


def _picked_again(index: GraphIndex, pick: int) -> bool:
    """Whether rows are picked out of the choice by another operator: their order may then be that one's."""
    return any(index.nodes[i].op_type != "TopK" and picks_by_value(index, i) for i in _behind(index, pick))


def _weighted_behind(index: GraphIndex, pick: int) -> bool:
    return any(i in index.weighted for i in _behind(index, pick))


def _same(one: object, other: object) -> bool:
    """Whether an output that could tell of the order is the same but for rounding."""
    if not isinstance(one, np.ndarray) or not isinstance(other, np.ndarray) or one.shape != other.shape:
        return False
    if one.dtype.kind != "f" or not one.size or not np.isfinite(one).all():
        return False
    spread = float(np.ptp(one.astype(np.float64)))
    rounding = _ROUNDING.get(one.dtype.itemsize, _LEAST_ROUNDING) * float(
        np.abs(one.astype(np.float64)).max()
    )
    return spread > rounding and bool(np.allclose(one, other, rtol=0, atol=rounding))

"""Nodes that look only at the positions of a sequence that its mask counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from redtest_onnx.graph.masks import Mask
from redtest_onnx.graph.probe.constants import PREFIX, Constants

COUNTED = f"{PREFIX}counted"
"""Name of what says which positions count."""


def mask_nodes(mask: Mask, constants: Constants) -> list[onnx.NodeProto]:
    """Nodes that make 1.0 of positions that count and 0.0 of others, [n, positions], as `COUNTED`."""
    own, result = f"{COUNTED}/truth", COUNTED
    if mask.pad is None:
        nodes = [helper.make_node("Cast", [mask.input], [own], name=own, to=TensorProto.BOOL)]
    else:
        ids, equal = f"{COUNTED}/ids", f"{COUNTED}/padding"
        nodes = [
            helper.make_node("Cast", [mask.input], [ids], name=ids, to=TensorProto.INT64),
            helper.make_node("Equal", [ids, constants.scalar(mask.pad)], [equal], name=equal),
            helper.make_node("Not", [equal], [own], name=own),
        ]
    return [*nodes, helper.make_node("Cast", [own], [result], name=result, to=TensorProto.FLOAT)]


class MaskedPositions:
    """Writes the nodes from an activation [n, tokens, channels] to features of the positions that count.

    Args:
        output: how the names of the nodes begin.
        batch: n.
        opset: the model's operator set.
        constants: takes the constants.
    """

    def __init__(self, output: str, batch: int, opset: int, constants: Constants) -> None:
        self._output, self._batch, self._opset, self._constants = output, batch, opset, constants
        self._nodes: list[onnx.NodeProto] = []

    def nodes(self, value: str, pooling: str, drawn: npt.NDArray[np.float64] | None) -> list[onnx.NodeProto]:
        """The nodes; the last one gives the features.

        Args:
            value: the activation, float32.
            pooling: "mean" of the positions that count, all of them ("none", the others are 0), the first
                ("cls") or the one drawn ("token").
            drawn: [n] in [0, 1), where among its positions the token of each sample lies.
        """
        counted = self._current_positions(value)
        inside, seen = f"{self._output}/inside", f"{self._output}/seen"
        self._unsqueeze(counted, 2, inside)
        # What lies in the padding may be NaN, which no weight of 0 would hide.
        self._add("Where", [inside, value, self._constants.zeros(())], seen)
        if pooling != "none":
            row, chosen = f"{self._output}/row", f"{self._output}/chosen"
            self._unsqueeze(self._weights(counted, pooling, drawn), 1, row)
            self._add("MatMul", [row, seen], chosen)
            seen = chosen
        flat = f"{self._output}/masked"
        self._add("Reshape", [seen, self._constants.integers([self._batch, -1])], flat)
        return self._nodes

    def _current_positions(self, value: str) -> str:
        """The mask of the positions of this run, the last ones where the mask covers a past, too."""
        sizes, first, last = (f"{self._output}/{name}" for name in ("sizes", "first", "counted"))
        one = self._constants.integers([1])
        self._add("Shape", [value], sizes)
        self._add("Gather", [sizes, one], f"{sizes}/1")
        self._add("Neg", [f"{sizes}/1"], first)
        self._add("Slice", [COUNTED, first, self._constants.integers([1 << 40]), one], f"{last}/float")
        self._add("Cast", [f"{last}/float"], last, to=TensorProto.BOOL)
        return last

    def _weights(self, counted: str, pooling: str, drawn: npt.NDArray[np.float64] | None) -> str:
        """[n, tokens] float32: equal for all positions that count, or 1 for the one that is chosen."""
        base = f"{self._output}/weights"
        self._add("Cast", [counted], base, to=TensorProto.FLOAT)
        if self._opset >= 13:
            self._add("ReduceSum", [base, self._constants.integers([1])], f"{base}/sum", keepdims=1)
        else:
            self._add("ReduceSum", [base], f"{base}/sum", axes=[1], keepdims=1)
        if pooling == "mean":
            self._add("Max", [f"{base}/sum", self._constants.one()], f"{base}/count")
            self._add("Div", [base, f"{base}/count"], f"{base}/share")
            return f"{base}/share"
        places = np.zeros(self._batch) if pooling == "cls" or drawn is None else drawn
        self._add("CumSum", [base, self._constants.scalar(1)], f"{base}/rank")
        self._add("Mul", [f"{base}/sum", self._constants.floats(places[:, None])], f"{base}/place")
        self._add("Floor", [f"{base}/place"], f"{base}/floor")
        self._add("Add", [f"{base}/floor", self._constants.one()], f"{base}/wanted")
        self._add("Equal", [f"{base}/rank", f"{base}/wanted"], f"{base}/equal")
        self._add("And", [f"{base}/equal", counted], f"{base}/only")
        self._add("Cast", [f"{base}/only"], f"{base}/choice", to=TensorProto.FLOAT)
        return f"{base}/choice"

    def _unsqueeze(self, value: str, axis: int, output: str) -> None:
        if self._opset >= 13:
            self._add("Unsqueeze", [value, self._constants.integers([axis])], output)
        else:
            self._add("Unsqueeze", [value], output, axes=[axis])

    def _add(self, op: str, inputs: list[str], output: str, **attributes: object) -> None:
        node = helper.make_node(op, inputs, [output], name=output)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)

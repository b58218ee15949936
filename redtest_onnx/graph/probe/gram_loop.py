"""The body of the loop that sums a Gram matrix over ranges of columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper


class GramBody:
    """Writes the body: one range of columns of the features, cut into blocks of rows.

    Args:
        prefix: of all names; they must not meet those of the graph around it.
        opset: the model's operator set, at least 10.
        features: name of the features [n, p] in the graph around it.
        bounds: first row and end of each block.
        width: columns per turn.
    """

    def __init__(
        self, prefix: str, opset: int, features: str, bounds: Sequence[tuple[int, int]], width: int
    ) -> None:
        self._prefix = f"{prefix}/body/"
        self._opset = opset
        self._source = features
        self._bounds = bounds
        self._width = width
        self._nodes: list[onnx.NodeProto] = []

    @property
    def sums(self) -> dict[str, tuple[int, int]]:
        """Names and sizes of what is carried from turn to turn: the blocks on and below the diagonal."""
        sizes = [stop - start for start, stop in self._bounds]
        return {f"block{i}_{j}": (sizes[i], sizes[j]) for i in range(len(sizes)) for j in range(i + 1)}

    def graph(self) -> onnx.GraphProto:
        """Inputs: turn, condition, level, sums; outputs: condition, level, sums."""
        inputs = [self._info("turn", TensorProto.INT64, ()), self._info("go", TensorProto.BOOL, ())]
        inputs.append(self._info("level", TensorProto.FLOAT, ()))
        outputs = [self._info("go_on", TensorProto.BOOL, ()), self._info("new_level", TensorProto.FLOAT, ())]
        self._add("Identity", ["go"], "go_on")
        blocks = self._centred()
        for name, size in self.sums.items():
            i, j = map(int, name.removeprefix("block").split("_"))
            inputs.append(self._info(name, TensorProto.FLOAT, size))
            outputs.append(self._info(f"new_{name}", TensorProto.FLOAT, size))
            self._add("Gemm", [blocks[i], blocks[j], name], f"new_{name}", transB=1)
        return helper.make_graph(self._nodes, self._prefix.strip("/"), inputs, outputs)

    def _centred(self) -> list[str]:
        """The blocks of rows of this turn's columns, less the mean of the first block's rows."""
        width = self._constant("width", [self._width])
        axes = self._constant("axes", [0, 1])
        left = self._add("Mul", ["turn", width], "left")
        right = self._add("Add", [left, width], "right")
        blocks = []
        for k, (start, stop) in enumerate(self._bounds):
            first = self._add("Concat", [self._constant(f"start{k}", [start]), left], f"from{k}", axis=0)
            end = self._add("Concat", [self._constant(f"stop{k}", [stop]), right], f"to{k}", axis=0)
            block = self._add("Slice", [self._prefix + "features", first, end, axes], f"rows{k}")
            if k == 0:
                self._mean(block)
            blocks.append(self._add("Sub", [block, "mean"], f"centred{k}"))
        return blocks

    def _mean(self, block: str) -> None:
        if self._opset < 18:
            self._add("ReduceMean", [block], "mean", axes=[0], keepdims=1)
        else:
            self._add("ReduceMean", [block, self._constant("samples", [0])], "mean", keepdims=1)
        size = self._add("Abs", ["mean"], "size")
        largest = self._add("ReduceMax", [size], "largest", keepdims=0)  # of all, in all operator sets alike
        self._add("Max", [largest, "level"], "new_level")

    def _constant(self, name: str, values: list[int]) -> str:
        tensor = onnx.numpy_helper.from_array(np.array(values, np.int64))
        return self._add("Constant", [], name, value=tensor)

    def _add(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        named = [
            self._source if name == self._prefix + "features" else self._prefix + name for name in inputs
        ]
        node = helper.make_node(op, named, [self._prefix + output], self._prefix + output)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        return output

    def _info(self, name: str, dtype: int, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(self._prefix + name, dtype, shape)

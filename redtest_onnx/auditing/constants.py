"""Every value that a file stores: initializers, Constant nodes and numbers in attributes, in branches too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.auditing.support import label
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import reads
from redtest_onnx.graph.model import Model, subgraphs

_NUMBERS = ("epsilon", "min", "max", "value", "bias", "lambd", "threshold")
"""Attributes that hold numbers of the same kind as the activations."""
_LAST = frozenset({"MatMul", "MatMulInteger", "FusedMatMul", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"})


@dataclass(frozen=True)
class StoredConstant:
    """A stored tensor.

    Attributes:
        name: what nodes call it.
        tensor: sizes, type and values.
        readers: the nodes that read it, in its graph and inside that graph's branches.
        output: whether its graph hands it out.
    """

    name: str
    tensor: onnx.TensorProto
    readers: tuple[onnx.NodeProto, ...]
    output: bool

    @property
    def channel_axis(self) -> int:
        """The axis that numbers the outputs of the operator that reads it."""
        for node in self.readers:
            turned = node.op_type == "Gemm" and not ops.attribute(node, "transB", 0)
            if (node.op_type in _LAST or turned) and self.name in node.input[1:2]:
                return len(self.tensor.dims) - 1
            if node.op_type == "ConvTranspose" and self.name in node.input[1:2]:
                return 1
        return 0


def stored_tensors(graph: onnx.GraphProto) -> Iterator[StoredConstant]:
    """The initializers and Constant nodes of a graph and all branches and bodies inside it."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in set(reads(node)):
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}

    def found(name: str, tensor: onnx.TensorProto) -> StoredConstant:
        return StoredConstant(name, tensor, tuple(readers.get(name, ())), name in outputs)

    yield from (found(tensor.name, tensor) for tensor in graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.HasField("t"):
                    yield found(node.output[0], attribute.t)
                elif attribute.name in ("value_float", "value_floats"):
                    numbers = np.asarray(onnx.helper.get_attribute_value(attribute), np.float32)
                    yield found(node.output[0], onnx.numpy_helper.from_array(numbers))
        for child in subgraphs([node]):
            yield from stored_tensors(child)


def attribute_numbers(graph: onnx.GraphProto) -> Iterator[tuple[str, str, npt.NDArray[np.generic]]]:
    """Numbers in attributes that an operator computes with: node, attribute and value, in branches too."""
    for node in graph.node:
        if node.op_type != "Constant":
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.FLOAT and attribute.name in _NUMBERS:
                    yield label(node), attribute.name, np.asarray(attribute.f, np.float32)
                elif attribute.HasField("t") and node.op_type == "ConstantOfShape":
                    yield label(node), attribute.name, onnx.numpy_helper.to_array(attribute.t)
        for child in subgraphs([node]):
            yield from attribute_numbers(child)


def floating_values(model: Model) -> Iterator[tuple[StoredConstant, npt.NDArray[np.generic]]]:
    """Floating-point tensors with their values, one in memory at a time; bfloat16 is left out."""
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
    for stored in stored_tensors(model.graph):
        if stored.tensor.data_type in kinds:
            yield stored, model.value(stored.tensor)

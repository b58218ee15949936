"""Small graphs written node by node."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import redtest_onnx as rt
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.shapes import Shapes, infer_shapes
from redtest_onnx.layers.layer import Layer, find_layers


class Net:
    """Writes a graph node by node; weights are random.

    Inputs are float32 and given by their sizes; `add_input` declares others.
    """

    def __init__(self, opset: int = 17, **inputs: Sequence[int | str]) -> None:
        self.opset = opset
        self.inputs = {name: (TensorProto.FLOAT, shape) for name, shape in inputs.items()}
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def __call__(
        self, op: str, *inputs: str, name: str | None = None, outputs: int = 1, **attributes: object
    ) -> str:
        made = (
            [name or f"{op}{len(self.nodes)}"]
            if outputs == 1
            else [f"{op}{len(self.nodes)}_{k}" for k in range(outputs)]
        )
        self.nodes.append(helper.make_node(op, inputs, made, name=f"node_{made[0]}", **attributes))
        return made[0]

    def add_input(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        self.inputs[name] = (dtype, shape)
        return name

    def store(self, values: object, dtype: type = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def weight(self, *shape: int) -> str:
        return self.store(np.random.default_rng(len(self.weights)).normal(size=shape))

    def conv(self, x: str, inputs: int, outputs: int, name: str | None = None, stride: int = 1) -> str:
        weight = self.weight(outputs, inputs, 3, 3)
        return self("Conv", x, weight, name=name, pads=[1, 1, 1, 1], strides=[stride, stride])

    def model(self, *outputs: str) -> rt.Model:
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "net",
            [value(name, dtype, shape) for name, (dtype, shape) in self.inputs.items()],
            [value(name, TensorProto.FLOAT, None) for name in outputs],
            self.weights,
        )
        domains = sorted({node.domain for node in self.nodes} - {""})
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(name, 1) for name in domains)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=10 if self.opset > 20 else 9)
        return rt.Model(onnx.shape_inference.infer_shapes(proto))

    def measured(self, *outputs: str) -> tuple[GraphIndex, Shapes]:
        model = self.model(*outputs)
        sizes = {name: tuple(shape) for name, (_, shape) in self.inputs.items()}
        return GraphIndex(model.graph), infer_shapes(model, sizes)

    def layers(self, *outputs: str) -> dict[str, Layer]:
        return {layer.tensor: layer for layer in find_layers(*self.measured(*outputs))}


def branch(
    name: str, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto] | None = None
) -> onnx.GraphProto:
    """A branch of If that gives the output of its last node."""
    value = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    return helper.make_graph(nodes, name, [], [value], weights or [])

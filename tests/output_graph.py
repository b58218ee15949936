"""Graphs written node by node, for models with outputs of every kind."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import redtest_onnx as rt

value = helper.make_tensor_value_info


@dataclass
class Graph:
    """A graph written node by node, with weights from one seed."""

    seed: int
    batch: int | str = "N"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def __call__(
        self, op: str, *inputs: str, to: str | None = None, outputs: int = 1, **options: object
    ) -> str:
        names = [to or f"t{len(self.nodes)}"] + [f"t{len(self.nodes)}.{k}" for k in range(1, outputs)]
        domain = options.pop("domain", "")
        self.nodes.append(helper.make_node(op, inputs, names, domain=str(domain), **options))
        return names[0]

    def feed(self, name: str, *shape: int | str, dtype: int = TensorProto.FLOAT) -> str:
        self.inputs.append(value(name, dtype, [self.batch, *shape]))
        return name

    def store(self, values: object, dtype: type = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def cast(self, x: str) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node("Cast", [x], [name], to=TensorProto.FLOAT))
        return name

    def matrix(self, *shape: int) -> str:
        return self.store(self.random.normal(size=shape) / np.sqrt(shape[0]))

    def dense(self, x: str, inputs: int, outputs: int, to: str | None = None) -> str:
        return self("MatMul", x, self.matrix(inputs, outputs), to=to)

    def conv(self, x: str, inputs: int, outputs: int, kernel: int = 3, to: str | None = None) -> str:
        weight = self.store(self.random.normal(size=(outputs, inputs, kernel, kernel)) / np.sqrt(inputs * 9))
        return self("Conv", x, weight, to=to, pads=[kernel // 2] * 4)

    def model(self, *outputs: onnx.ValueInfoProto) -> rt.Model:
        graph = helper.make_graph(self.nodes, "net", self.inputs, list(outputs), self.weights)
        domains = sorted({node.domain for node in self.nodes if node.domain})
        opsets = [
            helper.make_opsetid("", 17),
            *(helper.make_opsetid(name, 2 if name == "ai.onnx.ml" else 1) for name in domains),
        ]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        helper.set_model_props(proto, self.metadata)
        return rt.Model(onnx.shape_inference.infer_shapes(proto))


def floats(name: str, *shape: int | str | None) -> onnx.ValueInfoProto:
    return value(name, TensorProto.FLOAT, list(shape) if shape else None)

"""Networks as ONNX files with random weights, built node by node: sizes and operators of the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_OPSET = 17
_BRANCH = 0.3  # scale of what residual branches add, so that values neither grow nor vanish with depth


class Graph:
    """Collects nodes and weights.

    Args:
        seed: of the weights.
    """

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.metadata: dict[str, str] = {}

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        """Append a node; returns its output, which is called like the node."""
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        """Store a tensor."""
        name = f"w_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, *sizes: int, scale: float = 1.0) -> str:
        """Store random weights, [outputs, inputs, ...] or of a product [inputs, outputs]."""
        inputs = int(np.prod(sizes[1:])) if len(sizes) > 2 else sizes[0]
        values = self.rng.standard_normal(sizes, np.float32) * np.float32(scale * np.sqrt(2 / inputs))
        return self.constant(values)

    def vector(self, size: int, mean: float = 0.0) -> str:
        """Store a bias or a gain."""
        return self.constant((mean + 0.1 * self.rng.standard_normal(size)).astype(np.float32))

    def convolution(
        self, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, scale: float = 1.0
    ) -> str:
        """A convolution with bias: it keeps the size, over the stride, or takes patches side by side."""
        weight = self.weight(outputs, inputs, kernel, kernel, scale=scale)
        pads = [0 if stride == kernel else kernel // 2] * 4
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": pads}
        return self.add("Conv", x, weight, self.vector(outputs), **shape)

    def linear(self, x: str, inputs: int, outputs: int, scale: float = 1.0) -> str:
        """A product with bias."""
        product = self.add("MatMul", x, self.weight(inputs, outputs, scale=scale))
        return self.add("Add", product, self.vector(outputs))

    def gelu(self, x: str) -> str:
        """x times the normal distribution's function of x."""
        half, one, root = (self.constant(np.float32(value)) for value in (0.5, 1.0, np.sqrt(2)))
        share = self.add("Add", self.add("Erf", self.add("Div", x, root)), one)
        return self.add("Mul", self.add("Mul", x, share), half)

    def norm(self, x: str, size: int) -> str:
        """Layer normalisation over the last axis."""
        return self.add("LayerNormalization", x, self.vector(size, 1.0), self.vector(size), axis=-1)

    def save(self, path: Path, given: onnx.ValueInfoProto, output: str) -> Path:
        """Write the model, its weights in a file beside it if they are larger than 1.5 GB."""
        result = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", None])
        self.nodes.append(helper.make_node("Identity", [output], ["scores"], "scores"))
        graph = helper.make_graph(self.nodes, path.stem, [given], [result], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
        helper.set_model_props(model, self.metadata)
        large = sum(len(tensor.raw_data) for tensor in self.weights) > 1.5e9
        onnx.save(model, path, save_as_external_data=large, location=f"{path.name}.data")
        return path


def blocks(path: Path, count: int) -> Path:
    """A residual network of `count` blocks with 16 channels of 16 x 16, [n, 3, 16, 16] -> [n, 10]."""
    graph = Graph()
    x = graph.add("Relu", graph.convolution("x", 3, 16, 3))
    for _ in range(count):
        inner = graph.add("Relu", graph.convolution(x, 16, 16, 3))
        x = graph.add("Relu", graph.add("Add", x, graph.convolution(inner, 16, 16, 3, scale=0.05)))
    return graph.save(path, _images(16), _head(graph, x, 16, 10))


def resnet50(path: Path) -> Path:
    """ResNet50 with its normalisation folded, [n, 3, 224, 224] -> [n, 1000]."""
    graph = Graph()
    x = graph.add("Relu", graph.convolution("x", 3, 64, 7, 2))
    x, inputs = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), 64
    for stage, (width, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for k in range(count):
            stride = 2 if stage and k == 0 else 1
            h = graph.add("Relu", graph.convolution(x, inputs, width, 1))
            h = graph.add("Relu", graph.convolution(h, width, width, 3, stride))
            h = graph.convolution(h, width, 4 * width, 1, scale=_BRANCH)
            shortcut = x if k else graph.convolution(x, inputs, 4 * width, 1, stride)
            x, inputs = graph.add("Relu", graph.add("Add", h, shortcut)), 4 * width
    return graph.save(path, _images(224), _head(graph, x, inputs, 1000))


def resnet56(path: Path) -> Path:
    """ResNet56 for small images with its normalisation folded, [n, 3, 32, 32] -> [n, 10]."""
    graph = Graph()
    x, inputs = graph.add("Relu", graph.convolution("x", 3, 16, 3)), 16
    for stage, width in enumerate((16, 32, 64)):
        for k in range(9):
            stride = 2 if stage and k == 0 else 1
            h = graph.add("Relu", graph.convolution(x, inputs, width, 3, stride))
            h = graph.convolution(h, width, width, 3, scale=_BRANCH)
            shortcut = x if inputs == width else graph.convolution(x, inputs, width, 1, stride)
            x, inputs = graph.add("Relu", graph.add("Add", h, shortcut)), width
    return graph.save(path, _images(32), _head(graph, x, inputs, 10))


def vit_b(path: Path, layers: int = 12, width: int = 768, heads: int = 12) -> Path:
    """A vision transformer of ViT-B's sizes, [n, 3, 224, 224] -> [n, 1000]; positions are averaged."""
    graph = Graph()
    patches = graph.convolution("x", 3, width, 16, 16)
    patches = graph.add("Reshape", patches, graph.constant(np.array([0, 0, -1], np.int64)))
    x = graph.add("Add", graph.add("Transpose", patches, perm=[0, 2, 1]), graph.weight(196, width, scale=0.1))
    apart = graph.constant(np.array([0, 0, heads, width // heads], np.int64))
    joined = graph.constant(np.array([0, 0, width], np.int64))
    root = graph.constant(np.float32(np.sqrt(width // heads)))
    blocks: list[dict[str, str]] = []
    for _ in range(layers):
        normed = graph.norm(x, width)
        query, key, value = (
            graph.add("Reshape", graph.linear(normed, width, width), apart) for _ in range(3)
        )
        query, value = (graph.add("Transpose", part, perm=[0, 2, 1, 3]) for part in (query, value))
        key = graph.add("Transpose", key, perm=[0, 2, 3, 1])
        scores = graph.add("Softmax", graph.add("Div", graph.add("MatMul", query, key), root), axis=-1)
        mixed = graph.add("Transpose", graph.add("MatMul", scores, value), perm=[0, 2, 1, 3])
        attended = graph.linear(graph.add("Reshape", mixed, joined), width, width, scale=_BRANCH)
        middle = graph.add("Add", x, attended)
        inner = graph.gelu(graph.linear(graph.norm(middle, width), width, 4 * width))
        added = graph.linear(inner, 4 * width, width, scale=_BRANCH)
        x = graph.add("Add", middle, added)
        blocks.append({"product": graph.nodes[-3].output[0], "adds": added, "leaves": x})
    graph.metadata["blocks"] = json.dumps(blocks)
    pooled = graph.add("ReduceMean", graph.norm(x, width), axes=[1], keepdims=0)
    return graph.save(path, _images(224), graph.linear(pooled, width, 1000))


def encoder(path: Path, layers: int = 12, width: int = 768, heads: int = 12, words: int = 30522) -> Path:
    """A BERT-like encoder, token numbers [n, t] -> [n, width]; the first token answers."""
    graph = Graph()
    x = graph.add("Gather", graph.weight(words, width), "x")
    x = graph.norm(x, width)
    apart = graph.constant(np.array([0, 0, heads, width // heads], np.int64))
    joined = graph.constant(np.array([0, 0, width], np.int64))
    root = graph.constant(np.float32(np.sqrt(width // heads)))
    for _ in range(layers):
        query, key, value = (graph.add("Reshape", graph.linear(x, width, width), apart) for _ in range(3))
        query, value = (graph.add("Transpose", part, perm=[0, 2, 1, 3]) for part in (query, value))
        key = graph.add("Transpose", key, perm=[0, 2, 3, 1])
        scores = graph.add("Softmax", graph.add("Div", graph.add("MatMul", query, key), root), axis=-1)
        mixed = graph.add("Transpose", graph.add("MatMul", scores, value), perm=[0, 2, 1, 3])
        attended = graph.linear(graph.add("Reshape", mixed, joined), width, width, scale=_BRANCH)
        x = graph.norm(graph.add("Add", x, attended), width)
        inner = graph.add("Relu", graph.linear(x, width, 4 * width))
        x = graph.norm(graph.add("Add", x, graph.linear(inner, 4 * width, width, scale=_BRANCH)), width)
    first = graph.add("Gather", x, graph.constant(np.array(0, np.int64)), axis=1)
    given = helper.make_tensor_value_info("x", TensorProto.INT64, ["n", "t"])
    return graph.save(path, given, graph.linear(first, width, width))


def minilm(path: Path) -> Path:
    """The encoder of 22.6 million values that sentences are often embedded by, in its sizes."""
    return encoder(path, 6, 384)


def samples(name: str, path: Path, count: int) -> Path:
    """Samples for one of `NETWORKS`, in an .npz: smooth colour fields with noise, or word numbers."""
    rng = np.random.default_rng(1)
    if name in ("encoder", "minilm"):
        values = rng.integers(0, 30522, (count, 32))
    else:
        side = {"resnet50": 224, "vit_b": 224, "resnet56": 32}.get(name, 16)
        coarse = np.kron(rng.standard_normal((count, 3, 4, 4)), np.ones((side // 4, side // 4)))
        values = (coarse + 0.4 * rng.standard_normal(coarse.shape)).astype(np.float32)
    np.savez(path, x=values)
    return path


def _images(side: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, side, side])


def _head(graph: Graph, x: str, inputs: int, classes: int) -> str:
    return graph.linear(graph.add("Flatten", graph.add("GlobalAveragePool", x)), inputs, classes)


NETWORKS: dict[str, Callable[[Path], Path]] = {
    "resnet50": resnet50,
    "resnet56": resnet56,
    "vit_b": vit_b,
    "encoder": encoder,
    "minilm": minilm,
    **{f"blocks{count}": lambda path, count=count: blocks(path, count) for count in (24, 99, 200, 600)},
}
"""Name -> what writes the network."""

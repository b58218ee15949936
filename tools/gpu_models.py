"""Small models of the kinds that differ on a GPU, for tools/gpu_check.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_RNG = np.random.default_rng(0)


def write_models(folder: Path, resnet: Path) -> dict[str, Path]:
    """Write one file per kind.

    Args:
        folder: where they go.
        resnet: a convolutional network with an open batch size.

    Returns:
        Files by what is special about them.
    """
    fixed = onnx.load(resnet)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 8
    del fixed.graph.value_info[:]
    models = {
        "fixed batch of 8": fixed,
        "recurrent": _recurrent(),
        "branches (If)": _branches(),
        "float16": _layers(np.float16),
        "integers in": _embedding(),
    }
    return {name: _saved(model, folder / f"{k}.onnx") for k, (name, model) in enumerate(models.items())}


def _saved(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


def _weight(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return (_RNG.normal(size=shape) / np.sqrt(shape[-2] if len(shape) > 1 else 1)).astype(dtype)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    output: str,
    weights: dict[str, np.ndarray],
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    out = helper.make_tensor_value_info(output, dtype, None)
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "kind", inputs, [out], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def _recurrent() -> onnx.ModelProto:
    """Three LSTMs over [time, n, features]."""
    nodes, weights, before = [], {}, "x"
    for k in range(3):
        weights |= {f"w{k}": _weight(1, 64, 16), f"r{k}": _weight(1, 64, 16), f"b{k}": _weight(1, 128)}
        nodes.append(helper.make_node("LSTM", [before, f"w{k}", f"r{k}", f"b{k}"], [f"y{k}"], hidden_size=16))
        nodes.append(helper.make_node("Squeeze", [f"y{k}", "direction"], [f"s{k}"]))
        before = f"s{k}"
    weights["direction"] = np.array([1], np.int64)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [12, "n", 16])
    return _model(nodes, [x], before, weights)


def _branches() -> onnx.ModelProto:
    """Layers inside an If whose condition is an input."""
    then = _layers(np.float32, prefix="then_", entry="x").graph
    other = _layers(np.float32, prefix="else_", entry="x").graph
    for branch in (then, other):
        del branch.input[:]
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])
    c = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    return _model([node], [x, c], "y", {})


def _layers(dtype: type, prefix: str = "", entry: str = "x") -> onnx.ModelProto:
    """Four residual layers [n, 32]."""
    nodes, weights, before = [], {}, entry
    for k in range(4):
        name = f"{prefix}{k}"
        weights[f"{name}_w"] = _weight(32, 32, dtype=dtype)
        nodes += [
            helper.make_node("MatMul", [before, f"{name}_w"], [f"{name}_m"]),
            helper.make_node("Tanh", [f"{name}_m"], [f"{name}_t"]),
            helper.make_node("Add", [before, f"{name}_t"], [f"{name}_a"]),
        ]
        before = f"{name}_a"
    kind = TensorProto.FLOAT16 if dtype is np.float16 else TensorProto.FLOAT
    x = helper.make_tensor_value_info(entry, kind, ["n", 32])
    return _model(nodes, [x], before, weights, kind)


def _embedding() -> onnx.ModelProto:
    """Rows of a table for int32 inputs, then layers."""
    model = _layers(np.float32, entry="e")
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("ids", TensorProto.INT32, ["n", 6]))
    model.graph.initializer.append(numpy_helper.from_array(_weight(50, 32), "table"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    model.graph.node.insert(0, helper.make_node("Gather", ["table", "ids"], ["g"]))
    model.graph.node.insert(1, helper.make_node("ReduceMean", ["g"], ["e"], axes=[1], keepdims=0))
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model)

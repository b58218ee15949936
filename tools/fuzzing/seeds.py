"""Small valid models of many kinds, which the fuzzer then breaks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Model = onnx.ModelProto


def _weight(name: str, *shape: int, kind: type = np.float32) -> onnx.TensorProto:
    values = np.random.default_rng(len(name) + sum(shape)).normal(size=shape)
    return numpy_helper.from_array((values * (20 if kind is np.int8 else 1)).astype(kind), name)


def _model(
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    sizes: list[int | str],
    *,
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
    ir: int = 8,
    functions: list[onnx.FunctionProto] | None = None,
) -> Model:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "seed", [value("input", kind, sizes)], [value("output", TensorProto.FLOAT, None)], weights
    )
    opsets = [helper.make_opsetid("", opset)]
    if functions:
        opsets.append(helper.make_opsetid("own", 1))
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=ir, functions=functions or [])
    return onnx.shape_inference.infer_shapes(proto)


def chain() -> Model:
    """Products with activations, some with a skip connection."""
    nodes, weights, last = [], [], "input"
    for k in range(4):
        weights.append(_weight(f"w{k}", 6, 6))
        nodes.append(helper.make_node("MatMul", [last, f"w{k}"], [f"m{k}"], name=f"product{k}"))
        nodes.append(helper.make_node("Relu", [f"m{k}"], [f"r{k}"], name=f"relu{k}"))
        last = f"r{k}"
        if k % 2:
            nodes.append(helper.make_node("Add", [last, f"r{k - 1}"], [f"a{k}"], name=f"add{k}"))
            last = f"a{k}"
    nodes.append(helper.make_node("Gemm", [last, "w4", "b4"], ["output"], name="head"))
    return _model(nodes, [*weights, _weight("w4", 6, 3), _weight("b4", 3)], ["n", 6])


def old_chain() -> Model:
    """The same as files of IR version 3 are: initializers are inputs, too."""
    proto = chain()
    proto.ir_version = 3
    proto.opset_import[0].version = 8
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return proto


def convolutions() -> Model:
    """A convolutional network with batch normalisation and pooling."""
    nodes, weights, last, width = [], [], "input", 3
    for k, wide in enumerate((4, 4, 6, 6)):
        weights += [_weight(f"c{k}", wide, width, 3, 3), *(_weight(f"{p}{k}", wide) for p in "sbm")]
        weights.append(numpy_helper.from_array(np.ones(wide, np.float32), f"v{k}"))
        stride = 2 if wide != width and k else 1
        nodes += [
            helper.make_node("Conv", [last, f"c{k}"], [f"k{k}"], pads=[1] * 4, strides=[stride] * 2),
            helper.make_node(
                "BatchNormalization",
                [f"k{k}", f"s{k}", f"b{k}", f"m{k}", f"v{k}"],
                [f"n{k}"],
                name=f"norm{k}",
            ),
            helper.make_node("Relu", [f"n{k}"], [f"r{k}"]),
        ]
        last, width = f"r{k}", wide
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "head"], ["output"]))
    return _model(nodes, [*weights, _weight("head", 6, 3)], ["n", 3, 8, 8])


def functions() -> Model:
    """Layers that are local functions."""
    inside = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    block = helper.make_function("own", "Block", ["x", "w"], ["y"], inside, [helper.make_opsetid("", 17)])
    nodes, weights, last = [], [], "input"
    for k in range(3):
        weights.append(_weight(f"w{k}", 6, 6))
        nodes.append(helper.make_node("Block", [last, f"w{k}"], [f"h{k}"], domain="own", name=f"block{k}"))
        last = f"h{k}"
    nodes.append(helper.make_node("Identity", [last], ["output"]))
    return _model(nodes, weights, ["n", 6], functions=[block])


def branches() -> Model:
    """An If whose branches hold layers, and a Loop."""
    nodes, weights = [], [_weight("w0", 6, 6), _weight("w1", 6, 6)]
    value = helper.make_tensor_value_info
    inner = [
        helper.make_node("MatMul", ["m", "w1"], ["t"], name="inner"),
        helper.make_node("Relu", ["t"], ["then"]),
    ]
    then = helper.make_graph(inner, "then", [], [value("then", 1, None)])
    other = helper.make_graph(
        [helper.make_node("Relu", ["m"], ["else"])], "else", [], [value("else", 1, None)]
    )
    weights.append(numpy_helper.from_array(np.array(True), "which"))
    weights.append(numpy_helper.from_array(np.array(2, np.int64), "often"))
    turn = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still"]),
            helper.make_node("MatMul", ["state", "w0"], ["next"]),
        ],
        "body",
        [value("turn", 7, []), value("going", 9, []), value("state", 1, ["n", 6])],
        [value("still", 9, []), value("next", 1, ["n", 6])],
    )
    nodes += [
        helper.make_node("MatMul", ["input", "w0"], ["m"]),
        helper.make_node("If", ["which"], ["b"], then_branch=then, else_branch=other, name="choice"),
        helper.make_node("Loop", ["often", "", "b"], ["l"], body=turn, name="loop"),
        helper.make_node("Add", ["l", "b"], ["output"]),
    ]
    return _model(nodes, weights, ["n", 6])


def quantised() -> Model:
    """Int8 weights that are dequantised where they are used."""
    weights = [numpy_helper.from_array(np.array(0.02, np.float32), "scale")]
    weights.append(numpy_helper.from_array(np.array(0, np.int8), "zero"))
    nodes, last = [], "input"
    for k in range(3):
        weights.append(_weight(f"q{k}", 6, 6, kind=np.int8))
        nodes += [
            helper.make_node("DequantizeLinear", [f"q{k}", "scale", "zero"], [f"d{k}"], name=f"wide{k}"),
            helper.make_node("MatMul", [last, f"d{k}"], [f"m{k}"]),
            helper.make_node("Tanh", [f"m{k}"], [f"t{k}"]),
        ]
        last = f"t{k}"
    nodes.append(helper.make_node("Identity", [last], ["output"]))
    return _model(nodes, weights, ["n", 6])


def sparse() -> Model:
    """A weight that stores its few values and where they stand."""
    proto = chain()
    tensor = proto.graph.initializer.pop(1)
    dense = numpy_helper.to_array(tensor).ravel()
    kept = np.flatnonzero(np.abs(dense) > 1).astype(np.int64)
    found = proto.graph.sparse_initializer.add()
    found.values.CopyFrom(numpy_helper.from_array(dense[kept], tensor.name))
    found.indices.CopyFrom(numpy_helper.from_array(kept, ""))
    found.dims.extend(tensor.dims)
    return proto


def recurrent() -> Model:
    """An LSTM between products."""
    nodes = [
        helper.make_node("Transpose", ["input"], ["time"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["time", "w", "r"], ["all"], hidden_size=6, name="lstm"),
        helper.make_node("Squeeze", ["all", "axis"], ["each"]),
        helper.make_node("MatMul", ["each", "out"], ["projected"]),
        helper.make_node("Transpose", ["projected"], ["output"], perm=[1, 0, 2]),
    ]
    axis = numpy_helper.from_array(np.array([1], np.int64), "axis")
    weights = [_weight("w", 1, 24, 6), _weight("r", 1, 24, 6), axis, _weight("out", 6, 6)]
    return _model(nodes, weights, ["n", 5, 6])


SEEDS: tuple[Callable[[], Model], ...] = (
    *(chain, old_chain, convolutions, functions, branches, quantised, sparse, recurrent),
)

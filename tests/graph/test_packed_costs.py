"""Costs of packed and quantised weights are those of the weights they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import redtest_onnx as rt
from redtest_onnx.graph.cost import count_macs, count_parameters
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.shapes import infer_shapes
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench
from tests.nets import Net

MS = "com.microsoft"


@pytest.mark.parametrize(("bits", "block"), [(4, 16), (4, 32), (8, 16), (2, 16)])
def test_packed_blocks(bits: int, block: int) -> None:
    net = Net(opset=21, x=[1, 64])
    blocks = 64 // block
    packed = net.store(np.zeros((48, blocks, block * bits // 8)), np.uint8)
    scales = net.store(np.ones(48 * blocks))
    net("MatMulNBits", "x", packed, scales, domain=MS, K=64, N=48, bits=bits, block_size=block, name="y")
    index = GraphIndex(net.model("y").graph)
    assert count_parameters(index) == 48 * 64 + 48 * blocks
    sizes = {"x": (1, 64), "y": (1, 48)}
    assert count_macs(index, infer_shapes(net.model("y"), sizes).updated(sizes)) == 48 * 64


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_quantised_lstm_counts_as_the_float_one(tmp_path: Path, direction: str) -> None:
    from onnxruntime.quantization import quantize_dynamic

    ways = 2 if direction == "bidirectional" else 1
    net = Net(x=[7, "N", 16])
    weights = net.weight(ways, 96, 16), net.weight(ways, 96, 24)
    net("LSTM", "x", *weights, outputs=3, hidden_size=24, direction=direction)
    out = net.nodes[-1].output[0]
    onnx.save(net.model(out).proto, tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "int8.onnx")
    costs = []
    for name in ("float", "int8"):
        model = rt.load(tmp_path / f"{name}.onnx")
        costs.append(Workbench(model, rt.open_data(None, model), RunOptions(threads=1)).cost)
    assert any(node.op_type == "DynamicQuantizeLSTM" for node in rt.load(tmp_path / "int8.onnx").graph.node)
    assert costs[1].macs == costs[0].macs == 7 * ways * 96 * (16 + 24)
    weights_held = ways * 96 * (16 + 24)
    assert weights_held <= costs[1].parameters <= weights_held * 1.05  # scales per channel are learned, too


@pytest.mark.parametrize("op", ["MatMulInteger", "DynamicQuantizeMatMul"])
def test_integer_products(op: str) -> None:
    net = Net(x=[3, 8])
    weight = net.store(np.ones((8, 5)), np.int8)
    if op == "MatMulInteger":
        net("DynamicQuantizeLinear", "x", outputs=3)
        net(op, net.nodes[-1].output[0], weight, name="y")
    else:
        net(op, "x", weight, net.store(0.1), domain=MS, name="y")
    index = GraphIndex(net.model("y").graph)
    assert count_parameters(index) == 40
    sizes = dict.fromkeys(("x", *(n for node in net.nodes[:-1] for n in node.output[:1])), (3, 8))
    shapes = infer_shapes(net.model("y"), {"x": (3, 8)}).updated({**sizes, "y": (3, 5)})
    assert count_macs(index, shapes) == 3 * 8 * 5


def test_memory_is_known_where_a_run_was_made() -> None:
    """A mask that shape inference can't size, since its sizes come from values."""
    net = Net(x=["N", 6, 8])
    net.add_input("steps", TensorProto.INT64, ["N", 6])
    hidden = net("MatMul", "x", net.weight(8, 8))
    most = net("ReduceMax", "steps", keepdims=0)
    ones = net("ConstantOfShape", net("Unsqueeze", most, net.store([0], np.int64)))
    net("Add", hidden, net("ReduceSum", net("Cast", ones, to=TensorProto.FLOAT), keepdims=0), name="y")
    model = net.model("y")
    data = rt.open_data({"x": np.zeros((8, 6, 8), np.float32), "steps": np.full((8, 6), 3)}, model)
    assert Workbench(model, data, RunOptions(threads=1)).cost.peak_activation_bytes
    assert helper is not None

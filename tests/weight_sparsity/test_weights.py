"""Weights are measured on their real values, however they are stored: as ONNX Runtime computes them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from nets import Net, branch
from onnx import TensorProto, helper, numpy_helper

import redtest_onnx as rt
from redtest_onnx.runtime.session import Session
from redtest_onnx.weight_sparsity.weights import Weight, find_weights

RNG = np.random.default_rng(0)


def only(model: rt.Model) -> Weight:
    (weight,), skipped = find_weights(model)
    assert not skipped
    return weight


def product(model: rt.Model, inputs: int) -> Any:
    """What the model makes of the unit vectors: its weights, [inputs, outputs]."""
    eye: Any = np.eye(inputs, dtype=np.float32)
    (out,) = Session(model).run({"x": eye}).values()
    return out


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64, np.float32])
def test_floats_of_any_width(dtype: Any) -> None:
    values = RNG.normal(size=(4, 3)).astype(dtype)
    net = Net(x=[4, 4])
    net.weights.append(numpy_helper.from_array(values, "w"))
    cast = net("Cast", "w", to=TensorProto.FLOAT)
    weight = only(net.model(net("MatMul", "x", cast)))
    np.testing.assert_array_equal(weight.values(net.model(cast)), values)
    assert not weight.coding.quantised


@pytest.mark.parametrize(
    ("axis", "scale", "zero"),
    [
        (1, np.float32(0.02), np.int8(3)),
        (0, np.array([0.01, 0.02, 0.05, 1.0], np.float32), np.array([0, 3, -5, 1], np.int8)),
        (-1, np.array([0.01, 0.02, 0.05], np.float32), None),
    ],
)
def test_dequantised_weights(axis: int, scale: Any, zero: Any) -> None:
    net = Net(x=[4, 4])
    stored = net.store(RNG.integers(-128, 128, size=(4, 3)), np.int8)
    operands = [stored, net.store(scale), *([net.store(zero, np.int8)] if zero is not None else [])]
    model = net.model(net("MatMul", "x", net("DequantizeLinear", *operands, axis=axis)))
    np.testing.assert_allclose(only(model).values(model), product(model, 4), rtol=1e-6)


def test_dequantised_in_blocks() -> None:
    net = Net(opset=21, x=[4, 4])
    stored = net.store(RNG.integers(-128, 128, size=(4, 3)), np.int8)
    made = net("DequantizeLinear", stored, net.weight(2, 3), axis=0, block_size=2)
    model = net.model(net("MatMul", "x", made))
    np.testing.assert_allclose(only(model).values(model), product(model, 4), rtol=1e-6)


def test_integer_products_with_their_scale_behind_them() -> None:
    net = Net(x=[4, 4])
    quantised = net("DynamicQuantizeLinear", "x", outputs=3)
    base = quantised.removesuffix("_0")
    stored = net.store(RNG.integers(0, 256, size=(4, 3)), np.uint8)
    made = net("MatMulInteger", quantised, stored, f"{base}_2", net.store(120, np.uint8))
    scale = net("Mul", f"{base}_1", net.store(0.03))
    model = net.model(net("Mul", net("Cast", made, to=TensorProto.FLOAT), scale))
    weight = only(model)
    assert weight.coding.quantised
    np.testing.assert_allclose(weight.values(model), product(model, 4), atol=1e-5)


def test_quantised_convolutions() -> None:
    net = Net()
    net.add_input("x", TensorProto.UINT8, [1, 2, 4, 4])
    weights = RNG.integers(-20, 20, size=(3, 2, 1, 1)).astype(np.int8)
    one, zero = net.store(1.0), net.store(0, np.uint8)
    scales, zeros = net.store([0.1, 0.2, 0.3]), net.store([0, 0, 0], np.int8)
    made = net("QLinearConv", "x", one, zero, net.store(weights, np.int8), scales, zeros, one, zero)
    weight = only(net.model(made))
    expected = weights * np.array([0.1, 0.2, 0.3], np.float32).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(weight.values(net.model(made)), expected, rtol=1e-6)


@pytest.mark.parametrize(("bits", "zeros"), [(4, False), (4, True), (8, True)])
def test_packed_blocks(bits: int, zeros: bool) -> None:
    inputs, outputs, block = 40, 6, 16
    blocks = -(-inputs // block)
    net = Net(x=[inputs, inputs])
    operands = [
        net.store(RNG.integers(0, 256, size=(outputs, blocks, block * bits // 8)), np.uint8),
        net.weight(outputs * blocks),
    ]
    if zeros:
        operands.append(net.store(RNG.integers(0, 256, size=outputs * -(-blocks * bits // 8)), np.uint8))
    sizes = {"K": inputs, "N": outputs, "bits": bits, "block_size": block}
    made = net("MatMulNBits", "x", *operands, domain="com.microsoft", **sizes)
    model = net.model(made)
    weight = only(model)
    np.testing.assert_allclose(weight.values(model).T, product(model, inputs), rtol=1e-3, atol=1e-4)
    assert weight.layout.count == outputs


def test_integers_without_a_stored_scale_are_listed() -> None:
    net = Net()
    net.add_input("x", TensorProto.UINT8, [1, 4])
    made = net("MatMulInteger", "x", net.store(np.ones((4, 3)), np.uint8))
    weights, skipped = find_weights(net.model(net("Cast", made, to=TensorProto.FLOAT)))
    assert not weights
    assert "scale" in skipped[0].reason


def test_weights_inside_branches_and_constants() -> None:
    net = Net(x=[2, 4])
    net.add_input("flag", TensorProto.BOOL, [])
    inner = numpy_helper.from_array(np.ones((4, 3), np.float32), "inner")
    outer = net.weight(4, 3)
    then_nodes = [helper.make_node("MatMul", ["x", "inner"], ["a"])]
    others = [helper.make_node("MatMul", ["x", outer], ["b"])]
    chosen = net("If", "flag", then_branch=branch("t", then_nodes, [inner]), else_branch=branch("e", others))
    constant = net("Constant", value=numpy_helper.from_array(np.ones((3, 2), np.float32)))
    weights, _ = find_weights(net.model(net("MatMul", chosen, constant)))
    assert {weight.name for weight in weights} == {constant, "inner", outer}


def test_models_of_onnx_runtimes_own_quantiser_are_read(tmp_path: Any) -> None:
    from onnxruntime.quantization import quantize_dynamic

    net = Net(x=[4, 8])
    whole = net.model(net("MatMul", "x", net.weight(8, 5)))
    path, small = tmp_path / "whole.onnx", tmp_path / "small.onnx"
    onnx.save(whole.proto, path)
    quantize_dynamic(path, small)
    model = rt.load(small)
    weight = only(model)
    assert weight.coding.quantised
    np.testing.assert_allclose(weight.values(model), whole.value(whole.proto.graph.initializer[0]), atol=0.02)


@pytest.mark.parametrize("per_output", [False, True])
def test_int8_recurrent_weights_are_those_that_they_stand_for(per_output: bool) -> None:
    random = np.random.default_rng(0)
    directions, inputs, hidden = 2, 5, 3
    net = Net(x=[7, 1, inputs])
    scales, stored = [], []
    for rows in (inputs, hidden):
        size = (directions, 4 * hidden) if per_output else (directions,)
        scales.append(random.uniform(0.01, 0.02, size).astype(np.float32))
        stored.append(random.integers(-127, 128, (directions, rows, 4 * hidden)).astype(np.int8))
    names = [net.store(value, np.int8) for value in stored]
    facts = []
    for scale in scales:
        facts += [net.store(scale), net.store(np.zeros_like(scale), np.int8)]
    y = net(
        "DynamicQuantizeLSTM",
        *("x", *names, *[""] * 5, *facts),
        domain="com.microsoft",
        hidden_size=hidden,
        direction="bidirectional",
    )
    model = net.model(y)
    found, skipped = find_weights(model)
    assert not skipped
    for weight, scale, numbers in zip(found, scales, stored, strict=True):
        spread = scale[:, None, :] if per_output else scale[:, None, None]
        np.testing.assert_allclose(weight.values(model), numbers * spread, rtol=1e-6)
        assert weight.layout.count == directions * 4 * hidden
    Session(model, rt.RunOptions("cpu", 1)).run({"x": np.ones((7, 1, inputs), np.float32)})

"""Quantised, half-precision, fused and unknown operators: what is found, what can go, why the rest stays."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from nets import Net
from onnx import TensorProto, helper

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.graph.validity import full_check
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.verify import verify, verify_removal
from redtest_onnx.runtime.workbench import Workbench

CPU = rt.RunOptions("cpu", 1)


def declared(model: rt.Model, *shape: object) -> rt.Model:
    """The model with the shape of its output, which ONNX can't infer behind operators it doesn't know."""
    info = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)  # type: ignore[arg-type]
    model.graph.output[0].CopyFrom(info)
    return model


def quantised() -> rt.Model:
    """Convolutions between quantisation and dequantisation, with 8-bit weights."""
    net = Net(x=["n", 3, 8, 8])
    scale, zero = net.store(0.05), net.store(0, np.int8)

    def qdq(h: str) -> str:
        return net("DequantizeLinear", net("QuantizeLinear", h, scale, zero), scale, zero)

    h = qdq("x")
    for k, (inputs, outputs) in enumerate([(3, 4), (4, 4), (4, 4), (4, 8)]):
        values = np.random.default_rng(k).integers(-20, 20, (outputs, inputs, 3, 3))
        weight = net("DequantizeLinear", net.store(values, np.int8), scale, zero)
        h = qdq(net("Relu", net("Conv", h, weight, name=f"conv{k}", pads=[1, 1, 1, 1])))
    logits = net("MatMul", net("Flatten", net("GlobalAveragePool", h)), net.weight(8, 3), name="y")
    return net.model(logits)


def four_bits() -> rt.Model:
    """Products with blocked 4-bit weights."""
    net = Net(21, x=["n", 32])
    h = "x"
    for k in range(3):
        packed = np.random.default_rng(k).integers(0, 256, 32 * 32 // 2, np.uint8).tobytes()
        net.weights.append(helper.make_tensor(f"w4_{k}", TensorProto.INT4, [32, 32], packed, raw=True))
        weight = net("DequantizeLinear", f"w4_{k}", net.store(np.full((2, 32), 0.02)), axis=0, block_size=16)
        h = net("Tanh", net("MatMul", h, weight, name=f"product{k}"))
    return declared(net.model(net("MatMul", h, net.weight(32, 3), name="y")), "n", 3)


def fused(*, normed: bool) -> rt.Model:
    """What ONNX Runtime's optimiser writes into files."""
    ms = {"domain": "com.microsoft"}
    net = Net(x=["n", 4, 16])
    h = net("MatMul", "x", net.weight(16, 16), name="embed")
    h = net("LayerNormalization", h, net.weight(16), net.weight(16)) if normed else h
    for k in range(2):
        a = net("FusedMatMul", h, net.weight(16, 16), alpha=0.1, name=f"product{k}", **ms)
        a = net("BiasGelu", a, net.weight(16), **ms)
        a = net("MatMul", a, net.weight(16, 16))
        h = net("SkipLayerNormalization", a, h, net.weight(16), net.weight(16), name=f"block{k}", **ms)
    return declared(net.model(net("MatMul", h, net.weight(16, 3), name="y")), "n", 4, 3)


def fused_images() -> rt.Model:
    ms = {"domain": "com.microsoft", "activation": "Relu", "pads": [1, 1, 1, 1]}
    net = Net(x=["n", 3, 8, 8])
    h = net("FusedConv", "x", net.weight(4, 3, 3, 3), name="conv0", **ms)
    for k in (1, 2):
        h = net("FusedConv", h, net.weight(4, 4, 3, 3), name=f"conv{k}", **ms)
    logits = net("MatMul", net("Flatten", net("GlobalAveragePool", h)), net.weight(4, 3), name="y")
    return declared(net.model(logits), "n", 3)


def few_bits() -> rt.Model:
    """Products as quantisers for language models write them."""
    net = Net(x=["n", 32])
    h = "x"
    for k in range(3):
        packed = np.random.default_rng(k).integers(0, 256, (32, 2, 8))
        weight, scales = net.store(packed, np.uint8), net.store(np.full(64, 0.02))
        attributes = {"K": 32, "N": 32, "bits": 4, "block_size": 16, "domain": "com.microsoft"}
        h = net("Tanh", net("MatMulNBits", h, weight, scales, name=f"product{k}", **attributes))
    return declared(net.model(net("MatMul", h, net.weight(32, 3), name="y")), "n", 3)


def half() -> rt.Model:
    net = Net()
    h = net.add_input("x", TensorProto.FLOAT16, ["n", 8])
    for k in range(3):
        weight = net.store(np.random.default_rng(k).normal(size=(8, 8)), np.float16)
        h = net("Relu", net("MatMul", h, weight, name=f"product{k}"))
    out = net(
        "Cast", net("MatMul", h, net.store(np.ones((8, 3)), np.float16)), to=TensorProto.FLOAT, name="y"
    )
    return net.model(out)


def positions(count: int) -> rt.Model:
    """Convolutions of signals (one axis of positions) or volumes (three); one changes the width."""
    net = Net(x=["n", 2, *[8] * count])
    h = "x"
    for k, (inputs, outputs) in enumerate([(2, 4), (4, 4), (4, 6), (6, 6)]):
        weight = net.weight(outputs, inputs, *[3] * count)
        h = net("Relu", net("Conv", h, weight, name=f"conv{k}", pads=[1] * 2 * count))
    logits = net("MatMul", net("Flatten", net("GlobalAveragePool", h)), net.weight(6, 3), name="y")
    return net.model(logits)


CASES = {
    "signals": (lambda: positions(1), ["conv0", "conv1", "conv2", "conv3"], ["conv1", "conv2", "conv3"]),
    "volumes": (lambda: positions(3), ["conv0", "conv1", "conv2", "conv3"], ["conv1", "conv2", "conv3"]),
    "quantised": (quantised, ["conv0", "conv1", "conv2", "conv3"], ["conv1", "conv2", "conv3"]),
    "four_bits": (four_bits, ["product0", "product1", "product2"], ["product1", "product2"]),
    "few_bits": (few_bits, ["product0", "product1", "product2"], ["product1", "product2"]),
    "fused": (lambda: fused(normed=True), ["embed", "block0", "block1"], ["block0", "block1"]),
    # A block that starts from values without a norm ends in front of its own: what takes its place is normed.
    "fused_unnormed": (
        lambda: fused(normed=False),
        ["embed", "block0/sum", "block1"],
        ["block0/sum", "block1"],
    ),
    "fused_images": (fused_images, ["conv0", "conv1", "conv2"], ["conv1", "conv2"]),
    "integers": (
        lambda: integers(0.05, 0.05, 0.05, 0.05),
        ["conv0", "conv1", "conv2"],
        ["conv1", "conv2"],
    ),
    "half": (half, ["product0", "product1", "product2"], ["product1", "product2"]),
}


def found(model: rt.Model) -> tuple[list[Layer], rt.Dataset]:
    data = rt.open_data(None, model, count=16)
    return list(Workbench(model, data, CPU).layers()), data


@pytest.mark.parametrize("name", CASES)
def test_layers_are_found_removed_and_verified(name: str) -> None:
    make, tensors, removable = CASES[name]
    model = make()
    layers, data = found(model)
    assert [layer.tensor for layer in layers] == tensors
    assert [layer.tensor for layer in layers if layer.removable] == removable
    bench = Workbench(model, data, CPU)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for layer in layers:
        if layer.removable:
            plan = Plan("test", model.sha256, (Step.of(layer),))
            edited = apply_plan(bench.opened, plan)
            verify_removal(bench.opened, edited, plan)
            pruned = bench.view.close(edited)
            verify(bench, bench.successor(pruned))
            full_check(pruned)
            # Packed weights, scales and zero points are those of the file, bit for bit.
            for tensor in pruned.graph.initializer:
                assert "adapter" in tensor.name or tensor == stored[tensor.name]
    assert rt.analyze(model, data, rt.AnalysisSettings(samples=8, batches=1)).layers


def integers(*scales: float) -> rt.Model:
    """Convolutions of integers, each with a scale for what it makes."""
    net = Net(x=["n", 4, 8, 8])
    zero, weight_scale = net.store(0, np.int8), net.store(0.02)
    steps = [net.store(scale) for scale in scales]
    h = net("QuantizeLinear", "x", steps[0], zero)
    for k, (before, after) in enumerate(pairwise(steps)):
        values = net.store(np.random.default_rng(k).integers(-20, 20, (4, 4, 3, 3)), np.int8)
        operands = (h, before, zero, values, weight_scale, zero, after, zero)
        h = net("QLinearConv", *operands, name=f"conv{k}", pads=[1, 1, 1, 1])
    h = net("DequantizeLinear", h, steps[-1], zero)
    logits = net("MatMul", net("Flatten", net("GlobalAveragePool", h)), net.weight(4, 3), name="y")
    return declared(net.model(logits), "n", 3)


def test_integers_are_only_handed_on_at_the_same_scale() -> None:
    layers, _ = found(integers(0.05, 0.05, 0.05, 0.1, 0.1))
    assert [layer.tensor for layer in layers] == [f"conv{k}" for k in range(4)]
    assert [layer.removable for layer in layers] == [False, True, False, True]
    assert layers[2].reason == "its input and output have different quantisation scales"


def custom(*, known: bool) -> rt.Model:
    """Somebody's own operator between products that are known."""
    net = Net(x=["n", 8])
    h = net("Relu", net("MatMul", "x", net.weight(8, 8), name="product0"))
    h = net("Relu", net("MatMul", h, net.weight(8, 8), name="product1"))
    h = net("Mix", h, net.weight(8, 8), name="mixed", domain="own")
    h = net("Relu", net("MatMul", h, net.weight(8, 8), name="product2"))
    model = declared(net.model(net("MatMul", h, net.weight(8, 3), name="y")), "n", 3)
    if known:
        info = helper.make_tensor_value_info("mixed", TensorProto.FLOAT, ["n", 8])
        model.graph.value_info.append(info)
    return model


@pytest.mark.parametrize("known", [True, False])
def test_unknown_operators_are_kept_and_worked_around(known: bool, caplog: pytest.LogCaptureFixture) -> None:
    model = custom(known=known)
    with caplog.at_level(logging.WARNING):
        layers, _ = found(model)
    assert [layer.tensor for layer in layers] == ["product0", "product1", "mixed", "product2"]
    assert layers[1].removable
    assert "own:Mix" in caplog.text
    if not known:
        assert layers[2].reason == "the shape of 'mixed' is unknown"
        assert not layers[3].removable


def test_commands_say_what_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(custom(known=False).proto.SerializeToString())
    assert run(["inspect", str(path)]) == 0
    assert "own:Mix" in capsys.readouterr().out
    assert run(["prune", str(path), "--remove", "1"]) == 2
    assert "own" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_bfloat16_that_no_kernel_takes_is_an_input_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = Net()
    h = net.add_input("x", TensorProto.BFLOAT16, ["n", 8])
    for k in range(3):
        values = np.random.default_rng(k).normal(size=64)
        net.weights.append(helper.make_tensor(f"b{k}", TensorProto.BFLOAT16, [8, 8], values))
        h = net("Relu", net("MatMul", h, f"b{k}", name=f"product{k}"))
    path = tmp_path / "m.onnx"
    path.write_bytes(net.model(net("Cast", h, to=TensorProto.FLOAT, name="y")).proto.SerializeToString())
    assert run(["inspect", str(path)]) == 0
    code = run(["analyze", str(path), "--samples", "8", "--batches", "1"])
    assert code in (0, 2)
    assert "Traceback" not in capsys.readouterr().err

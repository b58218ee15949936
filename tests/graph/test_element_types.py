"""Types behind operators that only ONNX Runtime knows, held against those of a run."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import redtest_onnx as rt
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.graph.shapes import infer_shapes
from redtest_onnx.runtime.session import Session
from tests.nets import Net

MS = "com.microsoft"


def _half_encoder() -> rt.Model:
    """Float16 with ONNX Runtime's fused operators, as its transformer optimiser writes it."""
    net = Net()
    x = net.add_input("x", TensorProto.FLOAT16, ["n", 4, 8])
    ones = net.store(np.ones(8), np.float16)
    for _ in range(3):
        product = net("MatMul", x, net.store(np.random.default_rng(0).normal(size=(8, 8)), np.float16))
        gelu = net("BiasGelu", product, ones, domain=MS)
        x = net("SkipLayerNormalization", x, gelu, ones, ones, domain=MS)
        x = net("Identity", net("FusedMatMul", x, net.store(np.eye(8), np.float16), domain=MS))
    return _without_types(net, x)


def _quantised_image() -> rt.Model:
    """Integers of eight bits from end to end, as ONNX Runtime's QOperator format has them."""
    net = Net(x=["n", 3, 8, 8])
    scale, zero = net.store(0.05), net.store(128, np.uint8)
    random = np.random.default_rng(0)
    x = net("QuantizeLinear", "x", scale, zero)
    width = 3
    for _ in range(3):
        weight = net.store(random.integers(-9, 9, (4, width, 3, 3)), np.int8)
        operands = scale, zero, weight, scale, net.store(0, np.int8), scale, zero
        made = net("QLinearConv", x, *operands, pads=[1, 1, 1, 1])
        added = net("QLinearAdd", made, scale, zero, made, scale, zero, scale, zero, domain=MS)
        joined = net("QLinearConcat", scale, zero, added, scale, zero, domain=MS, axis=1)
        x = net("QLinearLeakyRelu", joined, scale, zero, scale, zero, domain=MS)
        width = 4
    pooled = net("QLinearGlobalAveragePool", x, scale, zero, scale, zero, domain=MS)
    flat = net("Flatten", pooled)
    return _without_types(net, net("DequantizeLinear", flat, scale, zero, domain=MS))


def _without_types(net: Net, output: str) -> rt.Model:
    proto = net.model(output).proto
    del proto.graph.value_info[:], proto.graph.output[:]
    kind = TensorProto.FLOAT16 if proto.graph.input[0].type.tensor_type.elem_type == 10 else TensorProto.FLOAT
    proto.graph.output.append(helper.make_tensor_value_info(output, kind, None))
    return rt.Model(proto)


@pytest.mark.parametrize("build", [_half_encoder, _quantised_image])
def test_types_are_those_of_a_run(build) -> None:
    model = build()
    names = [name for node in model.graph.node for name in node.output]
    shape = [2 if isinstance(size, str) else size for size in model.inputs[0].shape]
    dtype = helper.tensor_dtype_to_np_dtype(model.inputs[0].dtype)
    values = np.random.default_rng(0).normal(size=shape).astype(dtype)
    seen = Session(expose(model, names), rt.RunOptions("cpu", 1)).run({"x": values})
    told = infer_shapes(model, {"x": tuple(shape)}).dtypes
    assert {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in seen.items()} == {
        name: told.get(name) for name in seen
    }


@pytest.mark.parametrize("build", [_half_encoder, _quantised_image])
def test_layers_of_such_models_are_measured(build) -> None:
    model = build()
    analysis = rt.analyze(model, options=rt.RunOptions("cpu", 1))
    assert len(analysis.layers) >= 2
    assert np.isfinite(analysis.similarity).all()


def test_what_an_unknown_domain_makes_has_no_type() -> None:
    net = Net(x=["n", 4])
    made = net("Own", "x", domain="somebody")
    net("Relu", made, name="behind")
    told = infer_shapes(_without_types(net, "behind"), {"x": (1, 4)}).dtypes
    assert made not in told

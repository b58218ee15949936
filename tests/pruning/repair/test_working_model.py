"""Corrections of weights in place: which values are stored, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.graph.linear_operators import linear_operators
from redtest_onnx.pruning.repair.working_model import WorkingModel

RNG = np.random.default_rng(0)


def values(model: rt.Model) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return {name: model.value(tensor) for name, tensor in model.initializers.items()}


@pytest.mark.parametrize("kind", ["MatMul", "Gemm", "turned", "Conv"])
def test_a_correction_is_added_in_the_layout_of_the_file(kind: str) -> None:
    images = kind == "Conv"
    net = Net(x=("n", 3, 5, 5) if images else ("n", 3))
    shape = {"MatMul": (3, 2), "Gemm": (3, 2), "turned": (2, 3), "Conv": (2, 3, 1, 1)}[kind]
    weight = net.weight(*shape)
    if kind == "MatMul":
        net("Add", net("MatMul", "x", weight), net.store([1.0, 2.0]), name="y")
    elif images:
        net("Conv", "x", weight, net.store([1.0, 2.0]), name="y")
    else:
        net("Gemm", "x", weight, net.store([1.0, 2.0]), name="y", transB=int(kind == "turned"))
    model = net.model("y")
    before = values(model)
    work = WorkingModel(model)
    (operator,) = work.operators
    assert work.result() is model
    change, bias = RNG.normal(size=(2, 3)), np.array([0.5, -3.0])
    work.correct(operator, change, bias)
    after = values(work.result())
    turned = change.T if shape == (3, 2) else change.reshape(shape)
    np.testing.assert_allclose(after["w0"], before["w0"] + turned, rtol=1e-6)
    np.testing.assert_allclose(after["w1"], [1.5, -1.0], rtol=1e-6)
    assert after["w0"].dtype == np.float32
    np.testing.assert_array_equal(work.weight(operator), after["w0"])
    work.correct(operator, -change, -bias)  # the second one starts where the first one ended
    again = values(work.result())
    np.testing.assert_allclose(again["w0"], before["w0"], atol=1e-6)
    np.testing.assert_allclose(again["w1"], [1.0, 2.0], atol=1e-6)
    np.testing.assert_array_equal(values(model)["w0"], before["w0"])  # the model given is as it was


def test_a_scale_on_the_way_to_the_target_is_divided_out() -> None:
    net = Net(x=("n", 3, 4, 4))
    convolution = net("Conv", "x", net.weight(2, 3, 1, 1), net.store([1.0, 2.0]))
    norm = [[2.0, 4.0], [0.0, 1.0], [0.0, 0.0], [1.0, 4.0]]  # factors of 2 and 2
    net("BatchNormalization", convolution, *map(net.store, norm), name="y", epsilon=0.0)
    model = net.model("y")
    work = WorkingModel(model)
    (operator,) = work.operators
    assert operator.target == "y"
    np.testing.assert_allclose(operator.scale, [2.0, 2.0])
    work.correct(operator, np.ones((2, 3)), np.array([6.0, 8.0]))
    before, after = values(model), values(work.result())
    np.testing.assert_allclose(after["w0"], before["w0"] + 0.5, rtol=1e-6)
    node, position = operator.bias or (0, 0)
    name = model.graph.node[node].input[position]
    change = after[name] - before[name]
    np.testing.assert_allclose(change, np.array([6.0, 8.0]) / operator.bias_scale, rtol=1e-6)


def test_operators_that_share_weights_get_their_own() -> None:
    net = Net(x=("n", 3))
    shared, bias = net.weight(3, 3), net.store([1.0, 2.0, 3.0])
    first = net("Gemm", "x", shared, bias, name="first")
    net("Gemm", net("Relu", first), shared, bias, name="y")
    model = net.model("y")
    before = values(model)
    work = WorkingModel(model)
    one, other = work.operators
    work.correct(other, np.full((3, 3), 2.0), np.full(3, 5.0))
    np.testing.assert_array_equal(work.weight(one), before["w0"])
    np.testing.assert_allclose(work.weight(other), before["w0"] + 2, rtol=1e-6)
    result = work.result()
    reads = {
        node.output[0]: [result.value(result.initializers[name]) for name in node.input[1:]]
        for node in result.graph.node
        if node.op_type == "Gemm"
    }
    np.testing.assert_array_equal(reads["first"][0], before["w0"])
    np.testing.assert_array_equal(reads["first"][1], before["w1"])
    np.testing.assert_allclose(reads["y"][0], before["w0"] + 2, rtol=1e-6)
    np.testing.assert_allclose(reads["y"][1], before["w1"] + 5, rtol=1e-6)
    assert [op.target for op in linear_operators(result)] == [op.target for op in linear_operators(model)]


def test_operators_without_a_bias_get_none() -> None:
    net = Net(x=("n", 3))
    net("MatMul", "x", net.weight(3, 2), name="y")
    model = net.model("y")
    work = WorkingModel(model)
    (operator,) = work.operators
    assert operator.bias is None
    work.correct(operator, np.ones((2, 3)), np.ones(2))
    assert values(work.result()).keys() == values(model).keys()


def test_half_precision_stays_and_what_is_too_large_is_no_error() -> None:
    net = Net()
    net.add_input("x", 10, ["n", 2])
    net("MatMul", "x", net.store(np.eye(2), np.float16), name="y")
    work = WorkingModel(net.model("y"))
    (operator,) = work.operators
    work.correct(operator, np.array([[1e6, 0.0], [0.0, 1.0]]), np.zeros(2))
    found = work.weight(operator)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.array([[np.inf, 0], [0, 2]], np.float16))

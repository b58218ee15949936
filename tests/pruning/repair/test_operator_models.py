"""A x, and <A x, e> = <x, A' e>, for every kind of operator, with A as ONNX Runtime computes it."""

from __future__ import annotations

import numpy as np
import pytest
from nets import Net

from redtest_onnx.graph.linear_operators import LinearOperator, linear_operators
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning.repair.operator_models import (
    RESULT,
    SOURCE,
    WEIGHT,
    backward_model,
    effective_weight,
    forward_model,
    input_metric,
)
from redtest_onnx.runtime.session import RunOptions, Session

CPU = RunOptions(device="cpu")

CONVOLUTIONS: dict[str, tuple[tuple[int, ...], dict[str, object]]] = {
    "plain": ((4, 6, 3, 3), {"pads": [1, 1, 1, 1]}),
    "strided": ((4, 6, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "uneven": ((4, 6, 3, 2), {"pads": [0, 1, 2, 0], "strides": [2, 1]}),
    "dilated": ((4, 6, 3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
    "grouped": ((4, 3, 3, 3), {"pads": [1, 1, 1, 1], "group": 2}),
    "depthwise": ((6, 1, 3, 3), {"pads": [1, 1, 1, 1], "group": 6, "strides": [2, 2]}),
    "same": ((4, 6, 2, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same lower": ((4, 6, 2, 4), {"auto_pad": "SAME_LOWER"}),
    "line": ((4, 6, 3), {"pads": [1, 1]}),
}


def only(model: Model) -> LinearOperator:
    (operator,) = linear_operators(model)
    return operator


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(case: str) -> None:
    sizes, attributes = CONVOLUTIONS[case]
    spatial = [7, 9] if len(sizes) == 4 else [9]
    net = Net(x=[2, 6, *spatial])
    net("Conv", "x", net.weight(*sizes), name="y", **attributes)
    model = net.model("y")
    operator = only(model)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 6, *spatial)).astype(np.float32)
    y = Session(model, CPU).run({"x": x})["y"]
    error = rng.normal(size=y.shape).astype(np.float32)
    weight = effective_weight(operator, model.value(operator.weight_of(model)))
    lines = len(sizes) == 3
    size, out = (1, 9) if lines else (7, 9), (1, *y.shape[2:]) if lines else y.shape[2:]
    kernel = weight.astype(np.float32)
    back = Session(backward_model(operator, size, out), CPU)
    wish = back.run({SOURCE: error[:, :, None] if lines else error, WEIGHT: kernel})[RESULT]
    ahead = Session(forward_model(operator, size, out), CPU)
    again = ahead.run({SOURCE: x[:, :, None] if lines else x, WEIGHT: kernel})[RESULT]
    np.testing.assert_allclose(again.reshape(y.shape), y, rtol=1e-4, atol=1e-4)
    assert wish.size == x.size
    assert float((y * error).sum()) == pytest.approx(float((x * wish.reshape(x.shape)).sum()), rel=1e-4)


@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Gemm transposed"])
def test_products(op: str) -> None:
    net = Net(x=[3, 5])
    transposed = op == "Gemm transposed"
    weight = net.weight(4, 5) if transposed else net.weight(5, 4)
    net(op.split()[0], "x", weight, name="y", **({"transB": 1} if transposed else {}))
    model = net.model("y")
    operator = only(model)
    rng = np.random.default_rng(1)
    x, error = (rng.normal(size=size).astype(np.float32) for size in ((3, 5), (3, 4)))
    y = Session(model, CPU).run({"x": x})["y"]
    weights = effective_weight(operator, model.value(operator.weight_of(model))).astype(np.float32)
    wish = Session(backward_model(operator, (), ()), CPU).run({SOURCE: error, WEIGHT: weights})[RESULT]
    again = Session(forward_model(operator, (), ()), CPU).run({SOURCE: x, WEIGHT: weights})[RESULT]
    np.testing.assert_allclose(again, y, rtol=1e-4, atol=1e-5)
    assert float((y * error).sum()) == pytest.approx(float((x * wish).sum()), rel=1e-4)


def test_the_metric_of_channels_is_block_diagonal_for_groups() -> None:
    net = Net(x=[1, 4, 5, 5])
    net("Conv", "x", net.weight(6, 2, 3, 3), name="y", group=2)
    model = net.model("y")
    operator = only(model)
    weight = effective_weight(operator, model.value(operator.weight_of(model)))
    metric = input_metric(operator, weight)
    assert not metric[:2, 2:].any()
    assert metric[3, 2] == pytest.approx(float((weight[3:, 1] * weight[3:, 0]).sum()))

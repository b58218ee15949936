"""Pairs of operators, and the steps that are tried for the first one of them."""

from __future__ import annotations

import numpy as np
import pytest
from nets import Net

from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.linear_operators import LinearOperator, linear_operators
from redtest_onnx.pruning.repair.equations import FINAL_ROWS, Correction
from redtest_onnx.pruning.repair.joint import _along, _energy, _weighed
from redtest_onnx.pruning.repair.pairs import PairValues, upstream_operator


def pair(net: Net, *outputs: str) -> str | None:
    """The target of what stands in front of the last operator, as far as it belongs to it alone."""
    model = net.model(*outputs)
    operators = linear_operators(model)
    by_target = {operator.target: operator for operator in operators}
    second = next(operator for operator in operators if operator.output == "second")
    found = upstream_operator(GraphIndex(model.graph), second, by_target)
    return None if found is None else found.target


def chain(*functions: str) -> tuple[Net, str]:
    net = Net(x=("n", 4))
    source = net("MatMul", "x", net.weight(4, 4), name="first")
    for k, function in enumerate(functions):
        source = net(function, source, name=f"f{k}")
    net("MatMul", source, net.weight(4, 4), name="second")
    return net, source


@pytest.mark.parametrize(
    ("functions", "expected"),
    [
        (("Relu",), "first"),
        (("Tanh", "Sigmoid"), "first"),
        ((), None),  # nothing to bend what it gives
        (("Softmax",), None),  # no function of single values
        (("Relu", "Softmax"), None),
    ],
)
def test_functions_of_single_values_make_a_pair(functions: tuple[str, ...], expected: str | None) -> None:
    net, _ = chain(*functions)
    assert pair(net, "second") == expected


def test_a_gate_of_one_operator_makes_a_pair_and_of_two_none() -> None:
    net = Net(x=("n", 4))
    first = net("MatMul", "x", net.weight(4, 4), name="first")
    gated = net("Mul", first, net("Sigmoid", first))
    net("MatMul", gated, net.weight(4, 4), name="second")
    assert pair(net, "second") == "first"
    net = Net(x=("n", 4))
    one, two = (net("MatMul", "x", net.weight(4, 4)) for _ in range(2))
    net("MatMul", net("Mul", one, net("Sigmoid", two)), net.weight(4, 4), name="second")
    assert pair(net, "second") is None


@pytest.mark.parametrize("convolution_first", [True, False])
def test_a_convolution_and_a_product_work_along_other_axes_and_make_no_pair(convolution_first: bool) -> None:
    net = Net(x=("n", 4, 4))
    first = (
        net("Conv", "x", net.weight(4, 4, 1)) if convolution_first else net("MatMul", "x", net.weight(4, 4))
    )
    bent, weight = net("Relu", first), net.weight(4, 4) if convolution_first else net.weight(4, 4, 1)
    net("MatMul" if convolution_first else "Conv", bent, weight, name="second")
    assert pair(net, "second") is None


@pytest.mark.parametrize("read", ["first", "f0"])
def test_what_others_read_makes_no_pair(read: str) -> None:
    net, _ = chain("Relu", "Tanh")
    net("Abs", read, name="aside")
    assert pair(net, "second", "aside") is None
    other, _ = chain("Relu", "Tanh")
    assert pair(other, "second", read) is None  # an output of the model


def test_behind_the_input_alone_there_is_no_pair() -> None:
    net = Net(x=("n", 4))
    net("MatMul", net("Relu", "x"), net.weight(4, 4), name="second")
    assert pair(net, "second") is None


def operator(*, groups: int = 1) -> LinearOperator:
    net = Net(x=(None, 4, 5, 5))
    return linear_operators(net.model(net("Conv", "x", net.weight(4, 4 // groups, 1, 1), group=groups)))[0]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_step_is_less_where_channels_do_much_already(groups: int) -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(4, 4 // groups)), rng.normal(size=4)
    root = rng.normal(size=(4, 4))
    curvature = root @ root.T
    fit = Correction(weight, bias, 1.0, 4, 9)
    found = _weighed(fit, curvature, operator(groups=groups))
    mean = np.trace(curvature) / 4
    damped = curvature / mean + np.eye(4)
    if groups == 2:
        damped = np.diag(np.diagonal(damped))
    np.testing.assert_allclose(damped @ found.weight * mean, weight, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(damped @ found.bias * mean, bias, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_without_curvature_the_fit_itself_is_the_step(value: float) -> None:
    fit = Correction(np.ones((4, 4)), np.ones(4), 1.0, 4, 9)
    found = _weighed(fit, value * np.eye(4), operator())
    np.testing.assert_array_equal(found.weight, fit.weight)
    np.testing.assert_array_equal(found.bias, fit.bias)


def test_outputs_move_along_in_their_own_type() -> None:
    inner = np.array([1.0, 2.0], np.float16)
    found = _along(inner, np.array([2.0, -4.0], np.float32), 0.5)
    np.testing.assert_array_equal(found, np.array([2.0, 0.0], np.float16))
    assert found.dtype == np.float16
    assert _energy(np.array([[3.0, -4.0]], np.float32)) == 25.0
    assert _energy(np.full(4, 1e30, np.float32)) == pytest.approx(4e60)
    assert _energy(np.array([np.inf], np.float32)) == np.inf
    assert _energy(np.zeros((0, 3), np.float32)) == 0.0


def held(density: int, runs: int, size: int = 4) -> PairValues:
    net = Net(x=(None, 6))
    first = linear_operators(net.model(net("MatMul", "x", net.weight(6, 6))))[0]
    values = PairValues()
    for _ in range(runs):
        values.hold(np.zeros((size, 6), np.float32), np.zeros((size, 6), np.float32), first, density)
    return values


def test_a_last_fit_holds_all_samples() -> None:
    assert not held(FINAL_ROWS, 40, size=1000).full
    assert len(held(FINAL_ROWS, 40, size=1000).inner) == 40
    assert held(FINAL_ROWS - 1, 40, size=1000).full


@pytest.mark.parametrize(("runs", "full"), [(5, False), (6, True), (7, True)])
def test_enough_is_four_positions_for_each_row(runs: int, full: bool) -> None:
    """Six unknowns at density one: twenty-four positions, four of each run."""
    found = held(1, runs)
    assert found.full is full
    assert len(found.inputs) == len(found.inner) == min(runs, 6)

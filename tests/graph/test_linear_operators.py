"""Linear operators whose weights are handed on to them by copies and transpositions."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.graph.channel_edits import keep_channels, silence_channels
from redtest_onnx.graph.inner_widths import inner_widths
from redtest_onnx.graph.linear_operators import linear_operators
from redtest_onnx.pruning.prune import PruneSettings
from redtest_onnx.pruning.repair.working_model import shared_operators
from redtest_onnx.runtime.session import Session


def blocks(layers: int = 4, *, handed_on: bool = True, early: bool = False) -> rt.Model:
    """Residual blocks of two products, with stored weights or in the way of PyTorch's unoptimised export.

    Args:
        layers: how many.
        handed_on: whether their weights are stored as [outputs, inputs], with a transposition in front.
        early: whether all transpositions lie in front of the first layer.
    """
    net, rng = Net(x=("n", 6)), np.random.default_rng(0)

    def weight(outputs: int, inputs: int) -> str:
        values = rng.normal(size=(outputs, inputs)) / np.sqrt(inputs)
        if handed_on:
            return net("Transpose", net("Identity", net.store(values)), perm=[1, 0])
        return net.store(values.T)

    source = net("MatMul", "x", weight(6, 6))
    for _ in range(layers):
        hidden = net("Relu", net("Add", net("MatMul", source, weight(8, 6)), net.store(np.zeros(8))))
        source = net("Add", source, net("Add", net("MatMul", hidden, weight(6, 8)), net.store(np.zeros(6))))
    net("MatMul", source, weight(3, 6), name="y")
    if early:
        net.nodes.sort(key=lambda node: node.op_type not in ("Identity", "Transpose"))
    return net.model("y")


def test_weights_are_found_behind_copies_and_transpositions() -> None:
    model = blocks(1)
    found = linear_operators(model)
    assert [operator.weight_of(model).name for operator in found] == ["w0", "w1", "w3", "w5"]
    assert all(operator.transposed for operator in found)
    assert [model.graph.node[operator.weight[0]].op_type for operator in found] == ["Identity"] * 4


@pytest.mark.parametrize("case", ["read twice", "an output", "turned images"])
def test_what_is_handed_on_to_others_too_or_otherwise_is_left_alone(case: str) -> None:
    net = Net(x=("n", 4), image=("n", 4, 5, 5))
    turned = net("Transpose", net.weight(4, 4), perm=[1, 0])
    net("MatMul", "x", turned, name="y")
    others = []
    if case == "read twice":
        others.append(net("MatMul", "x", turned))
    if case == "an output":
        others.append(turned)
    if case == "turned images":
        kernel = net("Transpose", net.weight(4, 4, 1, 1), perm=[1, 0, 2, 3])
        others.append(net("Conv", "image", kernel))
    found = linear_operators(net.model("y", *others))
    assert [operator.output for operator in found] == (["y"] if case == "turned images" else [])


@pytest.mark.parametrize("early", [False, True])
def test_refits_are_those_of_stored_weights(early: bool) -> None:
    x = {"x": np.random.default_rng(1).normal(size=(160, 6)).astype(np.float32)}
    settings = PruneSettings(repair="refit")
    plain, turned = (
        rt.prune(model, x, remove=1, settings=settings)
        for model in (blocks(handed_on=False), blocks(early=early))
    )
    assert len(turned.repair.refits) == len(plain.repair.refits) > 0
    assert turned.agreement.relative_l2 == pytest.approx(plain.agreement.relative_l2, rel=1e-3)
    assert turned.after.cost.parameters == plain.after.cost.parameters


def test_inner_widths_are_cut_in_what_is_stored() -> None:
    model = blocks(1)
    (width,) = inner_widths(model).found
    kept = {width.name: np.array([0, 2, 3, 6])}
    cut, silent = keep_channels(model, kept), silence_channels(model, kept)
    onnx.checker.check_model(cut.proto, full_check=True)
    assert [list(tensor.dims) for tensor in cut.graph.initializer] == [
        [6, 6],
        [4, 6],
        [4],
        [6, 4],
        [6],
        [3, 6],
    ]
    x = {"x": np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)}
    np.testing.assert_allclose(Session(cut).run(x)["y"], Session(silent).run(x)["y"], rtol=1e-5, atol=1e-6)


def test_biases_and_normalisations_are_found_behind_copies() -> None:
    """PyTorch's TorchScript exporter stores equal values once and copies them to the others."""
    net = Net(x=("n", 4), image=("n", 3, 5, 5))
    bias, ones = net.store(np.zeros(4)), net.store(np.ones(4))
    biases = [net("Identity", bias) for _ in range(4)]
    y = net("Add", net("Relu", net("Add", biases[0], net("MatMul", "x", net.weight(4, 4)))), "x", name="y")
    z = net("Gemm", y, net.weight(4, 4), biases[1], name="z")
    conv = net("Conv", "image", net.weight(4, 3, 1, 1))
    copied = net("Identity", ones)
    net("BatchNormalization", conv, copied, biases[2], biases[3], ones, name="normed")
    model = net.model(z, "normed")
    found = linear_operators(model)
    assert all(operator.bias_of(model) is model.initializers[bias] for operator in found)
    places = [model.graph.node[operator.bias[0]].output[0] for operator in found if operator.bias]
    assert places == biases[:3]
    assert found[2].target == "normed"


def test_channels_of_weights_that_are_handed_on_are_taken() -> None:
    x = {"x": np.random.default_rng(1).normal(size=(160, 6)).astype(np.float32)}
    pruning = rt.prune(blocks(2), x, targets={"params": 0.9}, width=True)
    assert pruning.plan.widths
    assert pruning.after.cost.parameters < pruning.before.cost.parameters


@pytest.mark.parametrize("kind", ["Shape", "part of it", "Size"])
def test_reading_the_sizes_of_weights_is_no_other_use_of_them(kind: str) -> None:
    """They are changed in place, and what was read of them remains where channels are taken."""
    net = Net(x=("n", 6))
    first = net.weight(6, 8)
    hidden = net("Relu", net("MatMul", "x", first))
    sizes = net(
        "Size" if kind == "Size" else "Shape", first, **({"start": 1} if kind == "part of it" else {})
    )
    out = net("MatMul", hidden, net.weight(8, 3))
    model = net.model(net("Mul", out, net("ReduceSum", net("Cast", sizes, to=1), keepdims=0), name="y"))
    assert not shared_operators(model)
    (width,) = inner_widths(model).found
    kept = {width.name: np.array([0, 2, 3, 6])}
    cut, silent = keep_channels(model, kept), silence_channels(model, kept)
    onnx.checker.check_model(cut.proto, full_check=True)
    assert [list(tensor.dims) for tensor in cut.graph.initializer] == [[6, 4], [4, 3]]
    x = {"x": np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)}
    np.testing.assert_allclose(Session(cut).run(x)["y"], Session(silent).run(x)["y"], rtol=1e-5)

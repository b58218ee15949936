"""The first tensor that differs is named, whatever went wrong."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.errors import InternalError
from redtest_onnx.pruning import divergence
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.divergence import first_divergence, first_infinite
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.verify import verify, verify_removal
from redtest_onnx.runtime.workbench import Workbench

CPU = rt.RunOptions("cpu", 1)


def chain() -> rt.Model:
    net = Net(x=["n", 6])
    h = net("Relu", net("MatMul", "x", net.weight(6, 6), name="p0"), name="h0")
    for k, (a, b) in enumerate(((6, 6), (6, 6), (6, 4), (4, 4)), 1):
        h = net("Relu", net("MatMul", h, net.weight(a, b), name=f"p{k}"), name=f"h{k}")
    return net.model(net("MatMul", h, net.weight(4, 3), name="y"))


def removed(names: list[str]) -> tuple[Workbench, rt.Model, Plan]:
    model = chain()
    bench = Workbench(model, rt.open_data(None, model), CPU)
    # By hand: an adapter that is no smaller than its layer is none that the tool would insert.
    steps = tuple(
        Step.of(layer)
        if layer.removable
        else Step(layer.name, layer.input or "", layer.exit, "adapter", None, 0, 0)
        for layer in bench.layers()
        if layer.tensor in names
    )
    plan = Plan("test", model.sha256, steps)
    return bench, apply_plan(bench, plan), plan


@pytest.mark.parametrize("names", [["p1"], ["p1", "p2"], ["p3"], ["p2", "p3", "p4"]])
def test_what_was_only_shortened_does_not_diverge(names: list[str]) -> None:
    bench, pruned, plan = removed(names)
    assert len(plan.steps) == len(names)
    assert first_divergence(bench, pruned, plan.steps) is None
    verify_removal(bench, pruned, plan)


def test_layers_of_a_part_that_no_layer_reads_any_more_do_not_diverge() -> None:
    """As those of an encoder, once all that attends to it was removed with them."""
    net = Net(x=("n", 6), side=("n", 6))
    side = net("MatMul", "side", net.weight(6, 6), name="s0")
    side = net("Add", side, net("MatMul", side, net.weight(6, 6)), name="s1")
    h = net("MatMul", "x", net.weight(6, 6), name="h0")
    read = net("Mul", net("MatMul", h, net.weight(6, 6)), net("Relu", side))
    h = net("Add", h, read, name="h1")
    model = net.model(net("MatMul", h, net.weight(6, 3), name="y"))
    bench = Workbench(model, rt.open_data(None, model), CPU)
    steps = (Step("side", "s0", "s1", "bypass", None, 0, 0), Step("main", "h0", "h1", "bypass", None, 0, 0))
    plan = Plan("test", model.sha256, steps)
    pruned = apply_plan(bench, plan)
    assert len(pruned.graph.node) == 2
    verify_removal(bench, pruned, plan)


def test_large_tensors_are_held_against_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, pruned, plan = removed(["p1"])
    monkeypatch.setattr(divergence, "_HELD", 1)
    assert first_divergence(bench, pruned, plan.steps) is None
    found = first_divergence(bench, broken(pruned, "p4"), plan.steps)
    assert found is not None
    assert found.tensor == "p4"


def broken(model: rt.Model, tensor: str) -> rt.Model:
    """The model with the weights in front of a tensor changed."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    node = next(node for node in proto.graph.node if tensor in node.output)
    stored = next(t for t in proto.graph.initializer if t.name == node.input[1])
    stored.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(stored) * np.float32(1.01), stored.name)
    )
    return rt.Model(proto)


@pytest.mark.parametrize("tensor", ["p0", "p2", "p4"])
def test_the_first_tensor_that_differs_is_named(tensor: str) -> None:
    bench, pruned, plan = removed(["p1"])
    with pytest.raises(
        InternalError, match=f"first tensor that differs is '{tensor}', made by node_{tensor}"
    ):
        verify_removal(bench, broken(pruned, tensor), plan)


def test_rewiring_that_went_wrong_is_found() -> None:
    bench, pruned, plan = removed(["p1"])
    proto = onnx.ModelProto()
    proto.CopyFrom(pruned.proto)
    reader = next(node for node in proto.graph.node if node.output[0] == "p2")
    reader.input[0] = "x"
    found = first_divergence(bench, rt.Model(proto), plan.steps)
    assert found is not None
    assert found.tensor == "p2"


def test_where_values_overflow_is_named() -> None:
    net = Net(x=["n", 4])
    h = net("Relu", net("MatMul", "x", net.weight(4, 4)), name="h")
    small = net("MatMul", h, net.store(np.eye(4) * 1e-30), name="small")
    big = net("Mul", small, net.store(3e38), name="big")
    model = net.model(net("MatMul", net("Mul", big, net.store(1e3), name="more"), net.weight(4, 2), name="y"))
    bench = Workbench(model, rt.open_data(None, model), CPU)
    layer = next(layer for layer in bench.layers() if layer.tensor == "small")
    step = Step(layer.name, "h", "small", "bypass", None, 16, None)
    pruned = apply_plan(bench, Plan("test", model.sha256, (step,)))
    assert (first_infinite(bench.successor(pruned)) or "").startswith("'big'")
    with pytest.raises(rt.InputError, match="it begins at 'big', made by node_big"):
        verify(bench, bench.successor(pruned))


def test_noise_made_on_the_way_is_no_divergence() -> None:
    net = Net(x=["n", 4])
    h = net("Relu", net("MatMul", "x", net.weight(4, 4)), name="h")
    h = net("Relu", net("MatMul", h, net.weight(4, 4), name="middle"), name="m")
    h = net("Add", h, net("RandomNormalLike", h, scale=5.0))
    model = net.model(net("MatMul", h, net.weight(4, 2), name="y"))
    bench = Workbench(model, rt.open_data(None, model), CPU)
    step = Step("middle", "h", "m", "bypass", None, 16, None)
    pruned = apply_plan(bench, Plan("test", model.sha256, (step,)))
    assert first_divergence(bench, pruned, (step,)) is None

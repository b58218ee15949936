"""What a partner file takes over, node by node, and what can't be carried over to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.follow import _changes, _counterpart, _same_plan, follow_plan
from redtest_onnx.pruning.plan import Narrowing, Plan, Step
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

CPU = rt.RunOptions("cpu", 1)


def network(prefix: str = "") -> rt.Model:
    """Blocks whose weights are called after a prefix."""
    net = Net(x=("n", 4))
    x = net("MatMul", "x", net.weight(4, 4), name="first")
    for k in range(3):
        wide = net("Relu", net("MatMul", x, net.weight(4, 8), name=f"up{k}"))
        x = net("Add", x, net("MatMul", wide, net.weight(8, 4), name=f"down{k}"), name=f"block{k}")
    model = net.model(net("Gemm", x, net.weight(4, 2), net.weight(2), name="y"))
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        tensor.name = prefix + tensor.name
    for node in proto.graph.node:
        for k, name in enumerate(node.input):
            if name.startswith("w"):
                node.input[k] = prefix + name
    return rt.Model(proto)


def bench_of(model: rt.Model) -> Workbench:
    return Workbench(model, rt.open_data(None, model, count=8), CPU)


def edited(model: rt.Model, edit: Callable[[onnx.GraphProto], object]) -> rt.Model:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    edit(proto.graph)
    return rt.Model(proto)


def doubled(*names: str) -> Callable[[onnx.GraphProto], None]:
    def edit(graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            if tensor.name in names:
                values = onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values * 2, tensor.name))

    return edit


def changes(original: rt.Model, pruned: rt.Model, partner: rt.Model) -> dict[tuple[int, str], np.ndarray]:  # type: ignore[type-arg]
    return dict(_changes(original, pruned, partner, partner))


def test_new_values_go_to_the_nodes_of_the_same_names() -> None:
    original, partner = network(), network("other.")
    assert changes(original, original, partner) == {}
    found = changes(original, edited(original, doubled("w1", "w8")), partner)
    nodes = {node.name: i for i, node in enumerate(partner.graph.node)}
    assert found.keys() == {(nodes["node_up0"], "other.w1"), (nodes["node_y"], "other.w8")}
    values = {name: original.value(original.initializers[name]) for name in ("w1", "w8")}
    np.testing.assert_array_equal(found[nodes["node_up0"], "other.w1"], 2 * values["w1"])
    np.testing.assert_array_equal(found[nodes["node_y"], "other.w8"], 2 * values["w8"])


def test_the_same_values_under_another_name_are_no_change() -> None:
    original, partner = network(), network("other.")

    def rename(graph: onnx.GraphProto) -> None:
        graph.initializer[1].name = graph.node[1].input[1] = "own"

    assert changes(original, edited(original, rename), partner) == {}
    both = edited(edited(original, rename), doubled("own"))
    ((key, values),) = changes(original, both, partner).items()
    assert key[1] == "other.w1"
    np.testing.assert_array_equal(values, 2 * original.value(original.initializers["w1"]))


def test_adapters_and_other_operators_can_not_be_carried_over() -> None:
    original, partner = network(), network("other.")

    def adapter(graph: onnx.GraphProto) -> None:
        graph.node.add().CopyFrom(onnx.helper.make_node("Relu", ["y"], ["z"], name="fresh"))

    with pytest.raises(rt.InputError, match="its adapters, such as 'fresh', can't be carried over"):
        changes(original, edited(original, adapter), partner)
    changed = edited(original, doubled("w1"))

    def rename(graph: onnx.GraphProto) -> None:
        graph.node[1].name = "another"

    with pytest.raises(rt.InputError, match="has no operator 'node_up0' to take over its new weights"):
        changes(original, changed, edited(partner, rename))

    def computed(graph: onnx.GraphProto) -> None:
        graph.node[1].input[1] = "x"

    with pytest.raises(rt.InputError, match="has no operator 'node_up0'"):
        changes(original, changed, edited(partner, computed))

    def resized(graph: onnx.GraphProto) -> None:
        graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.ones((4, 9), np.float32), "other.w1"))

    with pytest.raises(rt.InputError, match="the resized operator 'node_up0' can't be carried over"):
        changes(original, changed, edited(partner, resized))


def test_a_plan_is_followed_by_the_names_of_layers() -> None:
    bench, partner = bench_of(network()), bench_of(network("other."))
    layers = [layer for layer in bench.layers() if layer.action == "bypass"]
    plan = Plan("mine", bench.digest, (Step.of(layers[0], 0.5), Step.of(layers[2])))
    same = _same_plan(bench, plan, partner)
    assert [step.region for step in same.steps] == [layers[0].name, layers[2].name]
    assert [step.score for step in same.steps] == [0.5, None]
    assert (same.criterion, same.model_sha256) == ("mine", partner.digest)
    pruned = edited(apply_plan(bench, plan), doubled("w3"))
    followed = follow_plan(bench, pruned, plan, partner)
    feeds = bench.sample
    one, other = (Session(model, CPU).run(feeds)["y"] for model in (pruned, followed))
    np.testing.assert_array_equal(one, other)
    assert all(name.startswith("other.") for name in followed.initializers)  # it is the partner still
    assert len(followed.graph.node) < len(partner.model.graph.node)
    with pytest.raises(rt.InputError, match="can't be taken from two models") as error:
        follow_plan(bench, pruned, replace(plan, widths=(Narrowing("w", 4, (1,)),)), partner)
    assert "`width`" in (error.value.hint or "")


def test_layers_that_are_not_there_are_named() -> None:
    bench = bench_of(network())
    plan = Plan("mine", bench.digest, (Step("a", "x", "y", "bypass", None, 0, 0),) * 2)
    with pytest.raises(rt.InputError, match="the plan names layers that are not in net: a, a"):
        _same_plan(bench, plan, bench)


def test_the_layer_of_the_same_name_or_place_is_the_counterpart() -> None:
    own = tuple(layer for layer in bench_of(network()).layers())

    def renamed(layers: tuple[Layer, ...], **more: str) -> tuple[Layer, ...]:
        return tuple(replace(layer, name=f"{layer.name}!", **more) for layer in layers)  # type: ignore[arg-type]

    assert _counterpart(own, own[1], own) == own[1]
    assert _counterpart(own, own[1], own[::-1]) == own[1]  # by its name, wherever it stands
    others = renamed(own)
    assert _counterpart(own, own[1], others) == others[1]
    assert _counterpart(own, own[1], others[:-1]) is None
    assert _counterpart(own, own[1], renamed(own, kind="other")) is None
    assert _counterpart(own, own[1], own[:-1]) == own[1]

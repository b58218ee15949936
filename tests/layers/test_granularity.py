"""Layers of other sizes than the default series, on real graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from nets import Net
from onnx import helper

import redtest_onnx as rt
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.shapes import Shapes, infer_shapes
from redtest_onnx.layers.granularity import Granularity
from redtest_onnx.layers.layer import Layer, find_layers
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.verify import verify, verify_removal
from redtest_onnx.runtime.workbench import Workbench

MODELS = Path(__file__).parents[2] / "models"
CPU = rt.RunOptions("cpu", 1)
ALL: tuple[Granularity, ...] = get_args(Granularity)


@cache
def network(name: str) -> tuple[rt.Model, GraphIndex, Shapes]:
    model = rt.load(MODELS / f"{name}_digits.onnx")
    return model, GraphIndex(model.graph), infer_shapes(model, {"input": (1, 1, 8, 8)})


def series(name: str, granularity: Granularity) -> tuple[Layer, ...]:
    _, index, shapes = network(name)
    return find_layers(index, shapes, granularity=granularity)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        # The first operator; two convolutions, one block each; three widths, one of which brings a shortcut.
        ("resnet", {"operator": 57, "sub-layer": 28, "block": 28, "stage": 4}),
        # Patches; qkv, projection and two products of the perceptron; attention and perceptron; 8 blocks.
        ("vit", {"operator": 33, "sub-layer": 17, "block": 9, "stage": 2}),
        ("vgg", {"operator": 12, "sub-layer": 12, "block": 12, "stage": 5}),
    ],
)
def test_counts(name: str, counts: dict[Granularity, int]) -> None:
    assert {granularity: len(series(name, granularity)) for granularity in ALL} == counts


def test_names_and_kinds_of_blocks_and_stages() -> None:
    blocks = series("vit", "block")
    assert [layer.name for layer in blocks[1:]] == [f"blocks.{k}" for k in range(8)]
    assert {layer.kind for layer in blocks[1:]} == {"block"}
    assert all(layer.action == "bypass" for layer in blocks[1:])
    parts = series("vit", "sub-layer")
    assert blocks[1].parameters == parts[1].parameters + parts[2].parameters
    stages = series("resnet", "stage")
    assert [layer.action for layer in stages] == [None, "bypass", "adapter", "adapter"]
    assert sum(layer.parameters for layer in stages) == sum(
        layer.parameters for layer in series("resnet", "sub-layer")
    )


def test_operators_take_only_their_own_bias_and_activation_along() -> None:
    net = Net(x=[1, 3, 8, 8])
    h = net("Relu", net.conv("x", 3, 4, "stem"), name="h")
    inner = net("Relu", net("Add", net.conv(h, 4, 4, "one"), net.weight(4, 1, 1)), name="inner")
    block = net("Relu", net("Add", net.conv(inner, 4, 4, "two"), h), name="block")
    net("Gemm", net("Flatten", net("GlobalAveragePool", block)), net.weight(4, 2), name="y")
    found = find_layers(*net.measured("y"), granularity="operator")
    assert [(layer.input, layer.tensor, layer.exit) for layer in found] == [
        (None, "stem", "h"),
        ("h", "one", "inner"),
        ("inner", "two", "two"),
    ]


def recurrent_weights(net: Net, op: str, inputs: int, directions: int) -> list[str]:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    hidden = 8 // directions
    return [net.weight(directions, gates * hidden, width) for width in (inputs, hidden)]


def squeezed(net: Net, steps: str) -> str:
    return net("Squeeze", steps, net.store([1], np.int64))


def turned(net: Net, steps: str) -> str:
    moved = net("Transpose", steps, perm=[0, 2, 1, 3])
    return net("Reshape", moved, net.store([0, 0, -1], np.int64))


def turned_to_its_own_sizes(net: Net, steps: str) -> str:
    moved = net("Transpose", steps, perm=[0, 2, 1, 3])
    lead = net("Slice", net("Shape", moved), net.store([0], np.int64), net.store([2], np.int64))
    return net("Reshape", moved, net("Concat", lead, net.store([-1], np.int64), axis=0))


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(
    ("reshape", "directions"), [(squeezed, 1), (turned, 2), (turned_to_its_own_sizes, 2)]
)
def test_a_recurrent_operator_takes_along_what_makes_a_sequence_of_its_steps(
    op: str, reshape: Callable[[Net, str], str], directions: int
) -> None:
    net = Net(x=[5, 1, 6])
    h, exits = "x", []
    turn = {"direction": "bidirectional"} if directions == 2 else {}
    for inputs in (6, 8, 8):
        weights = recurrent_weights(net, op, inputs, directions)
        made = net(op, h, *weights, hidden_size=8 // directions, **turn)
        h = net("Relu", reshape(net, made))
        exits.append(h)
    net("MatMul", h, net.weight(8, 3), name="y")
    index, shapes = net.measured("y")
    found = find_layers(index, shapes, granularity="operator")
    assert [layer.kind for layer in found] == [op] * 3
    assert [layer.exit for layer in found] == exits
    assert [layer.action for layer in found] == [None, "bypass", "bypass"]


def test_an_operator_whose_first_output_nobody_wants_is_known_by_the_one_that_is_read() -> None:
    net = Net(x=[5, 1, 6])
    h = squeezed(net, net("GRU", "x", *recurrent_weights(net, "GRU", 6, 1), hidden_size=8))
    weights = recurrent_weights(net, "GRU", 8, 1)
    net.nodes.append(helper.make_node("GRU", [h, *weights], ["", "last"], hidden_size=8))
    net("MatMul", net("Squeeze", "last", net.store([0], np.int64)), net.weight(8, 3), name="y")
    found = find_layers(*net.measured("y"), granularity="operator")
    assert [layer.tensor for layer in found] == ["GRU0", "last"]


@pytest.mark.parametrize("granularity", ["operator", "block", "stage"])
@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_layers_of_every_size_are_removed_and_verified(name: str, granularity: Granularity) -> None:
    model, _, _ = network(name)
    bench = Workbench(model, rt.open_data(None, model), CPU)
    removable = [layer for layer in series(name, granularity) if layer.removable]
    rng = np.random.default_rng(0)
    for _ in range(2):
        chosen = rng.permutation(len(removable))[: max(1, len(removable) // 4)]
        steps = tuple(Step.of(removable[k]) for k in sorted(chosen))
        plan = Plan("test", model.sha256, steps)
        pruned = apply_plan(bench, plan)
        verify_removal(bench, pruned, plan)
        verify(bench, bench.successor(pruned))


def test_cross_attention_belongs_to_its_block() -> None:
    net = Net(x=[1, 4, 8], memory=[1, 5, 8])

    def attention(x: str, other: str, scope: str) -> str:
        q, k, v = (net("MatMul", s, net.weight(8, 8)) for s in (x, other, other))
        scores = net("Softmax", net("MatMul", q, net("Transpose", k, perm=[0, 2, 1])))
        out = net("Add", net("MatMul", net("MatMul", scores, v), net.weight(8, 8)), x, name=scope)
        for node in net.nodes[-8:]:
            node.name = f"/{scope.split('_')[0]}/{scope}/{node.output[0]}"
        return out

    h = net("MatMul", "x", net.weight(8, 8), name="embed")
    for k in range(2):
        h = attention(h, h, f"block{k}_self")
        h = attention(h, "memory", f"block{k}_cross")
        wide = net("Relu", net("MatMul", h, net.weight(8, 16)))
        h = net("Add", net("MatMul", wide, net.weight(16, 8)), h, name=f"block{k}_mlp")
        for node in net.nodes[-4:]:
            node.name = f"/block{k}/mlp/{node.output[0]}"
    net("MatMul", h, net.weight(8, 3), name="y")
    index, shapes = net.measured("y")
    assert len(find_layers(index, shapes)) == 7
    blocks = find_layers(index, shapes, granularity="block")
    assert [layer.name for layer in blocks[1:]] == ["block0", "block1"]

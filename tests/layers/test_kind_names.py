"""Kinds at their boundaries, names of regions of several modules, and what each layer says of itself."""

from __future__ import annotations

import numpy as np
import pytest
from nets import Net

from redtest_onnx.graph.cost import model_cost
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.layers.elsewhere import elsewhere
from redtest_onnx.layers.kinds import kind_of
from redtest_onnx.layers.layer import every_activation, find_layers, has_branches
from redtest_onnx.layers.names import common_scope, layer_names
from redtest_onnx.layers.regions import Region


def kind(net: Net, output: str, first: int = 0) -> str:
    """Of all nodes from the first one on together."""
    index = GraphIndex(net.model(output).graph)
    return kind_of(index, Region("x", output, output, frozenset(range(first, len(net.nodes))), frozenset()))


def products(count: int, join: str) -> str:
    """The kind of so many products in a row, at the end joined with the input."""
    net = Net(x=(1, 4))
    source = entry = net("MatMul", "x", net.weight(4, 4))
    for _ in range(count):
        source = net("Relu", net("MatMul", source, net.weight(4, 4)))
    return kind(net, net(join, source, entry, name="y"), 1)


@pytest.mark.parametrize(
    ("count", "join", "expected"),
    [
        (4, "Add", "feed-forward"),
        (5, "Add", "block"),
        (4, "Mul", "feed-forward"),
        (5, "Mul", "block"),
        (2, "Sub", "block"),
        (1, "Add", "feed-forward"),
        (1, "Mul", "MatMul"),  # a gate behind one operator
        (1, "Sub", "MatMul"),
    ],
)
def test_products_are_a_feed_forward_network_up_to_four(count: int, join: str, expected: str) -> None:
    assert products(count, join) == expected


@pytest.mark.parametrize(
    ("join", "expected"), [("Add", "residual block"), ("Sum", "residual block"), ("Mul", "branches")]
)
def test_convolutions_with_a_sum_are_residual(join: str, expected: str) -> None:
    net = Net(x=(1, 4, 8, 8))
    entry = net.conv("x", 4, 4)
    inner = net.conv(net("Relu", net.conv(entry, 4, 4)), 4, 4)
    assert kind(net, net(join, inner, entry, name="y"), 1) == expected


def test_what_ends_in_a_concatenation_has_branches() -> None:
    net = Net(x=(1, 4, 8, 8))
    entry = net.conv("x", 4, 4)
    total = net("Add", net.conv(entry, 4, 4), entry)
    assert kind(net, net("Concat", net.conv(total, 4, 4), total, name="y", axis=1), 1) == "branches"


def test_one_operator_is_called_by_its_name() -> None:
    net = Net(x=(1, 4))
    assert kind(net, net("MatMul", "x", net.weight(4, 4))) == "MatMul"


def cell(multiplied: int, *functions: str, shared: bool = False) -> str:
    net = Net(x=(1, 4))
    weights = net.weight(4, 4)
    one = net("MatMul", "x", weights)
    two = net("MatMul", one, weights if shared else net.weight(4, 4))
    for function in functions:
        two = net(function, two)
    for _ in range(multiplied):
        two = net("Mul", two, one)
    return kind(net, net("Identity", two, name="y"))


@pytest.mark.parametrize(
    ("multiplied", "functions", "shared", "expected"),
    [
        (2, ("Sigmoid", "Tanh"), False, "recurrent block"),
        (1, ("Sigmoid", "Tanh"), False, "feed-forward"),
        (2, ("Sigmoid",), False, "feed-forward"),
        (2, ("Tanh",), False, "feed-forward"),
        (1, ("Tanh",), True, "recurrent block"),  # the same weights for every step
        (1, ("Sigmoid",), True, "feed-forward"),
    ],
)
def test_gates_or_weights_used_again_make_a_recurrent_block(
    multiplied: int, functions: tuple[str, ...], shared: bool, expected: str
) -> None:
    assert cell(multiplied, *functions, shared=shared) == expected


def test_weights_that_only_others_use_again_make_none() -> None:
    net = Net(x=(1, 4))
    weights = net.weight(4, 4)
    net("MatMul", "x", weights, name="before")
    first = net("MatMul", "before", weights)
    second = net("Tanh", net("MatMul", first, net.weight(4, 4)))
    net("Mul", second, first, name="y")
    index = GraphIndex(net.model("y").graph)
    inside = frozenset(range(1, len(net.nodes)))
    assert kind_of(index, Region("before", "y", "y", inside, frozenset())) == "feed-forward"


def named(*groups: list[str]) -> tuple[GraphIndex, list[Region]]:
    """Regions of products whose nodes have the given names; those without `MatMul` apply no weights."""
    net = Net(x=[1, 4])
    regions, x = [], "x"
    for k, group in enumerate(groups):
        first, entry = len(net.nodes), x
        for j, name in enumerate(group):
            x = (
                net("MatMul", x, net.weight(4, 4), name=f"t{k}.{j}")
                if "MatMul" in name
                else net("Relu", x, name=f"t{k}.{j}")
            )
            net.nodes[-1].name = name
        nodes = frozenset(range(first, len(net.nodes)))
        regions.append(Region(entry, x, x, nodes, frozenset()))
    return GraphIndex(net.model(x).graph), regions


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        (["model/layers.1/a/MatMul", "model/layers.2/b/MatMul"], "model.layers.1-2"),
        (["model/layers.1/a/MatMul", "model/layers.3/b/MatMul", "model/layers.2/Add"], "model.layers.1-3"),
        (["layers.10/MatMul", "layers.9/MatMul"], "layers.9-10"),
        (["h.0/MatMul", "h.4/MatMul"], "h.0-4"),
        (["model/layers.1/a/MatMul", "model/layers.1/b/MatMul"], "model.layers.1"),
        (["model/layers.1/a/MatMul", "model/blocks.2/b/MatMul"], "model"),  # other modules
        (["model/layers.1/a/MatMul", "model/head/MatMul"], "model"),
        (["model/layers.1/a/MatMul", "model/layers.2/a/MatMul", "model/MatMul"], "model"),
    ],
)
def test_numbered_modules_are_told_from_first_to_last(scopes: list[str], expected: str) -> None:
    assert layer_names(*named(scopes)) == [expected]


def test_the_scope_of_most_operators_with_weights_tells_layers_of_one_scope_apart() -> None:
    first = ["/b/mlp/MatMul", "/b/mlp/MatMul_1", "/b/norm/MatMul", "/b/norm/Relu", "/b/norm/Relu_1", "/b/Add"]
    second = ["/b/attn/Relu", "/b/attn/Relu_1", "/b/drop/Relu"]  # none: most nodes
    assert layer_names(*named(first, second)) == ["b.mlp", "b.attn"]


def test_the_common_scope_of_regions() -> None:
    index, regions = named(["/m/a/x/MatMul", "/m/a/y/MatMul"], ["/m/b/MatMul"], ["/m/MatMul"])
    assert common_scope(index, regions[:1]) == ("m", "a")
    assert common_scope(index, regions[:2]) == ("m",)
    assert common_scope(index, regions) == ("m",)
    assert common_scope(index, []) == ()


def chain(side: int = 6) -> Net:
    net = Net(x=(1, 3, side, side))
    stem = net("Relu", net.conv("x", 3, 4, "stem"), name="h")
    inner = net("Relu", net.conv(stem, 4, 4, "one"), name="inner")
    block = net("Add", net.conv(inner, 4, 4, "two"), stem, name="block")
    wide = net("Relu", net.conv(block, 4, 8, "wide", stride=2), name="last")
    net("Gemm", net("Flatten", net("GlobalAveragePool", wide)), net.weight(8, 2), name="y")
    return net


def test_every_activation_says_what_it_belongs_to() -> None:
    index, shapes = chain().measured("y")
    layers = find_layers(index, shapes)
    found = every_activation(index, shapes, layers)
    assert [layer.index for layer in found] == list(range(len(found)))
    by_tensor = {layer.tensor: layer for layer in found}
    made = [name for node in index.nodes for name in node.output]
    assert list(by_tensor) == made
    assert by_tensor["block"].action == "bypass"
    assert by_tensor["block"].parameters == 2 * 4 * 4 * 9
    assert by_tensor["one"].reason == "it is a part of block"
    assert by_tensor["inner"].reason == "it is a part of block"
    assert (by_tensor["one"].parameters, by_tensor["one"].macs) == (4 * 4 * 9, 4 * 4 * 9 * 36)
    assert (by_tensor["one"].kind, by_tensor["one"].channels_first) == ("Conv", True)
    assert (by_tensor["inner"].kind, by_tensor["inner"].channels_first) == ("Relu", False)
    assert (by_tensor["inner"].input, by_tensor["inner"].exit) == ("one", "inner")
    assert (by_tensor["inner"].operators, by_tensor["inner"].action) == (1, None)
    assert by_tensor["inner"].shape == (1, 4, 6, 6)
    assert (by_tensor["inner"].added_parameters, by_tensor["inner"].added_macs) == (0, 0)
    assert by_tensor["y"].reason == "it is no layer of its own"
    assert by_tensor["stem"].input is None or by_tensor["stem"].input == "x"


def test_reasons_give_both_shapes() -> None:
    layers = {layer.tensor: layer for layer in find_layers(*chain().measured("y"))}
    assert layers["wide"].reason == "it changes the shape from 4x6x6 to 8x3x3"
    assert layers["wide"].action == "adapter"
    assert layers["wide"].added_parameters == (4 * 2 * 2 + 1) * 8
    assert layers["wide"].added_macs == 4 * 2 * 2 * 8 * 9
    assert layers["stem"].reason == "it reads the model's input: there is no earlier layer to take its place"


def test_an_adapter_as_large_as_its_layer_frees_nothing() -> None:
    def action(middle: int) -> tuple[str | None, str | None]:
        net = Net(x=(1, 4))
        first = net("Relu", net("MatMul", "x", net.weight(4, 4)))
        wide = net("MatMul", net("Relu", net("MatMul", first, net.weight(4, middle))), net.weight(middle, 6))
        joined = net("Add", wide, net("MatMul", first, net.weight(4, 6)), name="wide")
        net("MatMul", net("Relu", net("MatMul", joined, net.weight(6, 6))), net.weight(6, 3), name="y")
        layer = net.layers("y")["wide"]
        return layer.action, layer.reason

    assert action(1) == ("adapter", "it changes the shape from 4 to 6")
    net = Net(x=(1, 4))
    first = net("Relu", net("MatMul", "x", net.weight(4, 4)))
    net("Relu", net("MatMul", first, net.weight(4, 6), name="p"))
    net(
        "MatMul",
        net("Relu", net("MatMul", net.nodes[-1].output[0], net.weight(6, 6))),
        net.weight(6, 3),
        name="y",
    )
    layer = net.layers("y")["p"]
    assert layer.action is None
    assert layer.reason == (
        "it changes the shape from 4 to 6, and an adapter in its place would be as large as the layer itself"
    )


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ((1, 4, 4, 4), (1, 4, 8, 8), "it changes the shape from 4x4x4 to 4x8x8, which no adapter can do"),
    ],
)
def test_growing_is_what_no_adapter_can_do(
    before: tuple[int, ...], after: tuple[int, ...], reason: str
) -> None:
    net = Net(x=before)
    first = net("Relu", net.conv("x", 4, 4), name="f")
    net("ConvTranspose", first, net.weight(4, 4, 2, 2), strides=[2, 2], name="up")
    net.conv(net("Relu", net.conv("up", 4, 4)), 4, 2, name="y")
    layer = net.layers("y")["up"]
    assert layer.shape == after
    assert (layer.action, layer.reason) == (None, reason)


def test_blocks_are_told_from_single_operators() -> None:
    layers = find_layers(*chain().measured("y"))
    assert has_branches(layers)
    assert not has_branches(layer for layer in layers if layer.kind == "Conv")
    stages = find_layers(*chain().measured("y"), granularity="stage")
    assert has_branches(stages)


def test_shared_tensors_are_named_by_their_size() -> None:
    net = Net(x=(1, 4))
    small, large = net.weight(4), net.weight(4, 4)
    source = "x"
    for _ in range(3):
        source = net("Relu", net("Add", net("MatMul", source, large), small))
    net("MatMul", source, net.weight(4, 3), name="y")
    index, shapes = net.measured("y")
    layers = find_layers(index, shapes)
    found = elsewhere(index, layers, model_cost(index, shapes))
    assert found.shared_names == (large, small)
    assert (found.shared, found.total) == (20, 32)
    assert found.parameters == 32 - sum(layer.parameters for layer in layers)


def test_weights_that_one_layer_reads_twice_are_its_own() -> None:
    net = Net(x=(1, 4))
    first = net("Relu", net("MatMul", "x", net.weight(4, 4)))
    shared = net.weight(4, 4)
    inner = net("MatMul", net("Relu", net("MatMul", first, shared)), shared)
    block = net("Add", inner, first)
    net("MatMul", net("Relu", block), net.weight(4, 3), name="y")
    index, shapes = net.measured("y")
    found = elsewhere(index, find_layers(index, shapes), model_cost(index, shapes))
    assert (found.shared, found.shared_names, found.parameters) == (0, (), 12)
    assert np.sum([layer.parameters for layer in find_layers(index, shapes)]) == 32

"""Who makes, reads and needs a tensor."""

from __future__ import annotations

import numpy as np
import pytest
from nets import Net, branch
from onnx import TensorProto, helper, numpy_helper

from redtest_onnx.graph.index import GraphIndex, captured


def index(net: Net, *outputs: str) -> GraphIndex:
    return GraphIndex(net.model(*outputs).graph)


def weighted(net: Net, *outputs: str) -> list[str]:
    found = index(net, *outputs)
    return [found.nodes[i].output[0] for i in sorted(found.weighted)]


def test_readers_look_into_branches() -> None:
    net = Net(x=[1, 4])
    net("Relu", "x", name="a")
    net(
        "If",
        net.store(True, np.bool_),
        name="y",
        then_branch=branch("then", [helper.make_node("Neg", ["a"], ["then"])]),
        else_branch=branch("else", [helper.make_node("Abs", ["a"], ["else"])]),
    )
    net("Sub", "a", "a", name="z")
    assert index(net, "y", "z").readers["a"] == (1, 2)


def test_own_names_of_a_branch_are_not_captured() -> None:
    inner = numpy_helper.from_array(np.ones(1, np.float32), "w")
    nodes = [helper.make_node("Add", ["a", "w"], ["b"]), helper.make_node("Add", ["b", "outer"], ["c"])]
    assert list(captured(branch("g", nodes, [inner]))) == ["a", "outer"]


def test_sizes_are_not_fed() -> None:
    net = Net(x=[1, 4])
    size = net("Shape", "x")
    ones = net("ConstantOfShape", size)
    y = net("Add", "x", ones)
    assert index(net, y).input_dependent == {"x", y}


def test_weights_are_constant_matrices_of_linear_operators() -> None:
    net = Net(x=[2, 4, 4])
    net("MatMul", "x", net.weight(4, 4), name="linear")
    net("MatMul", "linear", "x", name="product of activations")
    net("Add", "linear", net.weight(4, 4), name="bias")
    net("MatMul", "linear", net.weight(4), name="vector")
    constant = net("MatMul", net.weight(4, 4), net.weight(4, 4), name="constant")
    net("MatMul", constant, "linear", name="folded")
    assert weighted(net, "product of activations", "bias", "vector", "folded") == ["linear", "folded"]


def test_quantised_and_constant_node_weights_count() -> None:
    net = Net(x=[1, 4])
    quantised = net("DequantizeLinear", net.store(np.ones((4, 4)), np.int8), net.store(0.1))
    net("MatMul", "x", quantised, name="a")
    values = numpy_helper.from_array(np.ones((4, 4), np.float32))
    net("MatMul", "a", net("Constant", value=values), name="b")
    vector = numpy_helper.from_array(np.ones(4, np.float32))
    net("MatMul", "b", net("Constant", value=vector), name="c")
    assert weighted(net, "c") == ["a", "b"]


def test_embeddings_count_and_plain_gathers_do_not() -> None:
    net = Net()
    net.add_input("ids", TensorProto.INT64, [1, 5])
    net("Gather", net.weight(10, 4), "ids", name="embedding")
    net("Gather", "embedding", net.store([0], np.int64), name="first token", axis=1)
    assert weighted(net, "first token") == ["embedding"]


@pytest.mark.parametrize(("domain", "expected"), [("my.ops", True), ("com.microsoft", False)])
def test_unknown_operators_count_with_a_matrix(domain: str, expected: bool) -> None:
    node = helper.make_node("Mystery", ["x", "w"], ["y"], domain=domain)
    value = helper.make_tensor_value_info
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    graph = helper.make_graph(
        [node], "g", [value("x", TensorProto.FLOAT, [1, 4])], [value("y", TensorProto.FLOAT, None)], [weight]
    )
    assert bool(GraphIndex(graph).weighted) is expected


def diamond() -> GraphIndex:
    """h -> (a -> b, c) -> s -> y, with a scale that only b and s read."""
    net = Net(x=[1, 4])
    net("MatMul", "x", net.weight(4, 4), name="h")
    scale = net("Exp", net.weight(4), name="scale")
    net("Relu", "h", name="a")
    net("Mul", "a", scale, name="b")
    net("Neg", "h", name="c")
    net("Sum", "b", "c", scale, name="s")
    net("Relu", "s", name="y")
    return index(net, "y")


def made(found: GraphIndex, nodes: frozenset[int]) -> set[str]:
    return {found.nodes[i].output[0] for i in nodes}


def test_between_follows_activations_only() -> None:
    found = diamond()
    assert made(found, found.between("h", "s")) == {"a", "b", "c", "s"}
    assert made(found, found.between(None, "a")) == {"h", "a"}
    assert found.between("s", "s") == frozenset()


def test_dead_nodes_are_those_nothing_else_needs() -> None:
    found = diamond()
    assert made(found, found.dead_nodes_if_unread(["b"], kept=["h"])) == {"a", "b"}
    assert made(found, found.dead_nodes_if_unread(["s"], kept=["h"])) == {"a", "b", "c", "s", "scale"}
    assert made(found, found.dead_nodes_if_unread(["s"])) == {"h", "a", "b", "c", "s", "scale"}


def test_outputs_of_the_model_are_needed() -> None:
    net = Net(x=[1, 4])
    net("Relu", net("Relu", "x", name="a"), name="b")
    found = index(net, "a", "b")
    assert made(found, found.dead_nodes_if_unread(["b"])) == {"b"}

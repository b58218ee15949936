"""Which steps lie between cut tensors, which are looked into, and which flow knows a step best."""

from __future__ import annotations

import pytest
from nets import Net

from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.layers.dominators import FlowStep, Tree, find_flows, shadowed_steps, weighted
from redtest_onnx.layers.nested import majority_steps, nested_chains


def index_of(net: Net, *outputs: str) -> GraphIndex:
    return GraphIndex(net.model(*outputs).graph)


def product(net: Net, source: str, name: str) -> str:
    return net("MatMul", source, net.weight(4, 4), name=name)


def exits(chain: list[FlowStep]) -> list[str]:
    return [step.exit for step in chain]


def tree_of(net: Net, *outputs: str) -> tuple[GraphIndex, Tree]:
    index = index_of(net, *outputs)
    ((tree, *_),) = find_flows(index)
    return index, tree


def test_steps_of_a_chain_stand_between_one_tensor_and_the_next() -> None:
    net = Net(x=("n", 4))
    product(net, net("Relu", product(net, "x", "a"), name="b"), "c")
    index, tree = tree_of(net, "c")
    assert tree.chain == [
        FlowStep(None, "a", frozenset({0})),
        FlowStep("a", "b", frozenset({1})),
        FlowStep("b", "c", frozenset({2})),
    ]
    assert [weighted(index, step) for step in tree.chain] == [True, False, True]
    assert (tree.inner, tree.end) == ({}, "c")
    assert list(tree.chains()) == list(tree.final_chains()) == [tree.chain]
    assert list(tree.expanded_exits()) == []


def test_a_tree_ends_with_the_last_weights() -> None:
    net = Net(x=("n", 4))
    net("Tanh", net("Relu", product(net, product(net, "x", "a"), "b"), name="c"), name="d")
    assert tree_of(net, "d")[1].end == "b"
    bare = Net(x=("n", 4))
    bare("Relu", "x", name="y")
    assert find_flows(index_of(bare, "y")) == [[]]


def test_outputs_have_a_tree_each() -> None:
    net = Net(x=("n", 4))
    a = product(net, "x", "a")
    product(net, a, "b")
    product(net, a, "c")
    ((first, second),) = find_flows(index_of(net, "b", "c"))
    assert (exits(first.chain), exits(second.chain)) == (["a", "b"], ["a", "c"])


def skipped(inside: int, around: int = 0) -> Net:
    """A product `a`, products `s0`, `s1`, ... that a sum `sum` joins with `a`, and `z0`, `z1`, ..."""
    net = Net(x=("n", 4))
    a = product(net, "x", "a")
    source = a
    for k in range(inside):
        source = product(net, source, f"s{k}")
    source = net("Add", source, a, name="sum")
    for k in range(around + 1):
        source = product(net, source, f"z{k}")
    return net


@pytest.mark.parametrize(("inside", "opened"), [(4, False), (5, False), (6, True), (9, True)])
def test_a_long_chain_behind_a_skip_is_looked_into(inside: int, opened: bool) -> None:
    """More than five operators with weights in a row are no single layer."""
    _, tree = tree_of(skipped(inside, around=9), f"z{9}")
    assert exits(tree.chain)[:3] == ["a", "sum", "z0"]
    assert list(tree.expanded_exits()) == (["sum"] if opened else [])
    if opened:
        ((inner,),) = tree.inner.values()
        assert exits(inner.chain) == [f"s{k}" for k in range(inside)]
        assert inner.chain[0].entry == "a"
        assert list(tree.chains()) == [tree.chain, inner.chain]
        assert list(tree.final_chains()) == [tree.chain]  # what is inside is not the last


def test_a_last_step_that_is_looked_into_has_final_chains_inside() -> None:
    net = Net(x=("n", 4))
    a = product(net, "x", "a")
    source = a
    for k in range(7):
        source = product(net, source, f"s{k}")
    net("Add", source, a, name="sum")
    _, tree = tree_of(net, "sum")
    assert tree.end == "sum"
    assert [exits(chain)[-1] for chain in tree.final_chains()] == ["sum", "s6"]


def branched(count: int, length: int, around: int) -> Net:
    """`count` chains of products side by side that a sum joins, with `around` products elsewhere."""
    net = Net(x=("n", 4))
    a = net("Relu", "x", name="r")
    for k in range(around):
        a = product(net, a, f"a{k}")
    ends = []
    for k in range(count):
        source = a
        for j in range(length):
            source = product(net, source, f"b{k}.{j}")
        ends.append(source)
    net("Sum", *ends, name="sum")
    return net


@pytest.mark.parametrize(
    ("count", "length", "around", "opened"),
    [
        (3, 3, 1, True),  # nine of ten
        (4, 2, 1, False),  # eight of nine may be one layer
        (3, 3, 8, True),  # nine of seventeen are more than half
        (3, 3, 9, False),  # nine of eighteen are not
        (9, 1, 1, False),  # side by side alone
    ],
)
def test_a_step_that_holds_most_of_a_network_is_looked_into(
    count: int, length: int, around: int, opened: bool
) -> None:
    _, tree = tree_of(branched(count, length, around), "sum")
    assert exits(tree.chain)[-1] == "sum"
    assert list(tree.expanded_exits()) == (["sum"] if opened else [])
    if opened:
        found = [exits(inner.chain) for inner in tree.inner["sum"]]
        assert found == [[f"b{k}.{j}" for j in range(length)] for k in range(count)]


def test_inside_steps_others_are_looked_into_again() -> None:
    net = Net(x=("n", 4))
    a = product(net, "x", "a")
    b = product(net, a, "b")
    source = b
    for k in range(6):
        source = product(net, source, f"d{k}")
    source = net("Add", source, b, name="inner")
    for k in range(5):
        source = product(net, source, f"c{k}")
    net("Add", source, a, name="outer")
    _, tree = tree_of(net, "outer")
    assert list(tree.expanded_exits()) == ["outer", "inner"]
    assert [exits(chain)[0] for chain in tree.chains()] == ["a", "b", "d0"]


def towers(joins: int) -> GraphIndex:
    """Two inputs with products of their own; the second one joins the first so often."""
    net = Net(x=("n", 4), memory=("n", 4))
    other = product(net, product(net, "memory", "m0"), "m1")
    h = product(net, "x", "h")
    for k in range(max(joins, 1)):
        if joins:
            h = net("Add", h, product(net, other, f"k{k}"), name=f"j{k}")
        h = product(net, h, f"p{k}")
    if not joins:
        h = net("Add", h, other, name="late")
    product(net, h, "y")
    return index_of(net, "y")


def test_inputs_that_join_again_and_again_are_flows_of_their_own() -> None:
    index = towers(4)
    flows = find_flows(index)
    assert len(flows) == len(index.flows) == 2
    longest = [max((exits(tree.chain) for tree in flow), key=len) for flow in flows]
    assert ["h", *(f"{c}{k}" for k in range(4) for c in "jp"), "y"] in longest
    shadowed = shadowed_steps(index, flows)
    assert {step.exit for step in shadowed if len(step.nodes) > 4}  # all of the rest, to the other input
    kept = [[step.exit for tree in flow for step in tree.chain if step not in shadowed] for flow in flows]
    assert sorted(map(len, kept))[0] >= 2
    assert "m1" in {name for names in kept for name in names}


def test_a_single_flow_shadows_nothing() -> None:
    net = skipped(6)
    index = index_of(net, "z0")
    assert shadowed_steps(index, find_flows(index)) == set()


@pytest.mark.parametrize(
    ("inside", "around", "found"), [(9, 8, True), (9, 9, False), (8, 0, False), (9, 0, True)]
)
def test_a_majority_is_more_than_half_and_more_than_a_block(inside: int, around: int, found: bool) -> None:
    net = Net(x=("n", 4))
    source = "x"
    for k in range(inside + around):
        source = product(net, source, f"p{k}")
    index = index_of(net, source)
    step = FlowStep(None, f"p{inside - 1}", frozenset(range(inside)))
    assert list(majority_steps(index, [step])) == ([step] if found else [])


def test_parts_of_one_entry_and_one_exit_follow_one_another() -> None:
    net = Net(x=("n", 4))
    a = product(net, "x", "a")
    b = product(net, a, "b")
    c = net("Relu", b, name="c")
    d = net("Add", product(net, c, "d0"), c, name="d")
    e = product(net, a, "e")
    net("Mul", d, e, name="f")
    index = index_of(net, "f")
    step = FlowStep("a", "f", index.between("a", "f"))
    chains = nested_chains(index, step)
    found = [[(part.entry, part.exit) for part in chain] for chain in chains]
    assert found == [[("a", "b"), ("b", "c"), ("c", "d")], [("c", "d0")], [("a", "e")]]
    first = next(chain for chain in chains if len(chain) == 3)
    assert first[0].nodes == {1}
    assert first[2].nodes == index.between("c", "d")

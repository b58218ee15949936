"""What operators in front of a gap should hit, and which tensors changed, on graphs whose answer is plain."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.surgery import Removal, remove_regions
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.repair.targets import (
    before_activation,
    changed_tensors,
    gap_goals,
    is_only_rectified,
    is_reached,
)


@cache
def chain() -> rt.Model:
    """Products p0 ... p4 with a Relu r0 ... r3 behind all but the last."""
    net = Net(x=("n", 4))
    source = "x"
    for k in range(4):
        source = net("Relu", net("MatMul", source, net.weight(4, 4), name=f"p{k}"), name=f"r{k}")
    return net.model(net("MatMul", source, net.weight(4, 4), name="p4"))


def index() -> GraphIndex:
    return GraphIndex(chain().graph)


def plan(*gaps: tuple[str, str], action: str = "bypass") -> Plan:
    return Plan("test", "", tuple(Step(exit_, entry, exit_, action, None, 0, 0) for entry, exit_ in gaps))


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ((), {}),
        ((("r0", "r1"),), {"p0": "p1"}),
        ((("r0", "r1"), ("r1", "r2")), {"p0": "p2"}),  # one behind the other
        ((("r0", "r1"), ("r1", "r2"), ("r2", "r3")), {"p0": "p3"}),
        ((("r0", "r1"), ("r2", "r3")), {"p0": "p1", "p2": "p3"}),
        ((("p1", "p2"),), {"p1": "p2"}),  # no activation on either side
        ((("r0", "p1"),), {}),  # one on one side alone
        ((("p1", "r2"),), {}),
        ((("x", "r0"),), {}),  # nothing can be fitted to the input
    ],
)
def test_what_stands_in_front_of_a_gap_should_hit_what_was_behind(
    gaps: tuple[tuple[str, str], ...], expected: dict[str, str]
) -> None:
    assert gap_goals(index(), plan(*gaps)) == expected


def test_an_adapter_hits_what_was_behind_its_gap() -> None:
    goals = {"r1/adapter0": "p1", "r1/adapter1": "p1"}
    assert gap_goals(index(), plan(("r0", "r1"), action="adapter")) == goals
    assert gap_goals(index(), plan(("r0", "r1")), frozenset({"r1"})) == goals
    both = gap_goals(index(), plan(("r0", "r1"), ("r2", "r3")), frozenset({"r1"}))
    assert both == {**goals, "p2": "p3"}


def test_where_others_read_the_old_values_there_is_no_goal() -> None:
    net = Net(x=("n", 4))
    first = net("Relu", net("MatMul", "x", net.weight(4, 4), name="p0"), name="r0")
    second = net("Relu", net("MatMul", first, net.weight(4, 4), name="p1"), name="r1")
    model = net.model(net("Add", second, first, name="y"))
    assert gap_goals(GraphIndex(model.graph), plan(("r0", "r1"))) == {}


def test_reading_a_size_is_reading_no_values() -> None:
    net = Net(x=("n", 4))
    first = net("Relu", net("MatMul", "x", net.weight(4, 4), name="p0"), name="r0")
    second = net("Relu", net("MatMul", first, net.weight(4, 4), name="p1"), name="r1")
    model = net.model(net("Reshape", second, net("Shape", first), name="y"))
    assert gap_goals(GraphIndex(model.graph), plan(("r0", "r1"))) == {"p0": "p1"}


@pytest.mark.parametrize("kind", ["LeakyRelu", "PRelu"])
@pytest.mark.parametrize(
    ("first", "second", "alike"), [(0.1, 0.1, True), (0.2, 0.3, True), (0.05, 0.9, False)]
)
def test_rectifiers_of_other_slopes_make_no_goal(kind: str, first: float, second: float, alike: bool) -> None:
    net = Net(x=("n", 4))
    source = "x"
    for k, slope in enumerate((first, second)):
        product = net("MatMul", source, net.weight(4, 4), name=f"p{k}")
        if kind == "LeakyRelu":
            source = net(kind, product, name=f"r{k}", alpha=slope)
        else:
            source = net(kind, product, net.store(np.full(4, slope)), name=f"r{k}")
    graph = GraphIndex(net.model(net("MatMul", source, net.weight(4, 4), name="y")).graph)
    assert gap_goals(graph, plan(("r0", "r1"))) == ({"p0": "p1"} if alike else {})


def test_activations_are_looked_behind_in_their_order() -> None:
    net = Net(x=("n", 4))
    product = net("MatMul", "x", net.weight(4, 4), name="p")
    last = net("Tanh", net("Relu", product), name="t")
    graph = GraphIndex(net.model(net("MatMul", last, net.weight(4, 4), name="y")).graph)
    assert before_activation(graph, "t") == ("p", ("Tanh", "Relu"))
    assert before_activation(graph, "p") == ("p", ())
    assert before_activation(graph, "x") == ("x", ())


def test_other_functions_on_both_sides_give_no_goal() -> None:
    net = Net(x=("n", 4))
    first = net("Relu", net("MatMul", "x", net.weight(4, 4), name="p0"), name="r0")
    second = net("Tanh", net("MatMul", first, net.weight(4, 4), name="p1"), name="t1")
    model = net.model(net("MatMul", second, net.weight(4, 4), name="y"))
    assert gap_goals(GraphIndex(model.graph), plan(("r0", "t1"))) == {}


def test_tensors_behind_a_gap_changed_and_the_one_that_is_handed_on() -> None:
    pruned = remove_regions(chain(), [Removal("r1", "r2")])
    found = changed_tensors(index(), GraphIndex(pruned.graph))
    assert found == {"r1", "p3", "r3", "p4"}
    assert changed_tensors(index(), index()) == frozenset()


def test_what_reads_a_narrowed_tensor_changed_too() -> None:
    assert changed_tensors(index(), index(), ["r2"]) == {"r2", "p3", "r3", "p4"}


def test_tensors_of_an_adapter_are_new() -> None:
    net = Net(x=("n", 4))
    made = net("Tanh", net("Relu", "x", name="a"), name="b")
    net("Sigmoid", made, name="y")
    whole = GraphIndex(net.model("y").graph)
    other = Net(x=("n", 4))
    other("Sigmoid", other("Neg", other("Relu", "x", name="a"), name="mine"), name="y")
    assert changed_tensors(whole, GraphIndex(other.model("y").graph)) == {"mine", "y"}


@pytest.mark.parametrize(("dtype", "step"), [(np.float32, 1e-7), (np.float16, 1e-3)])
def test_a_goal_is_reached_where_rounding_alone_is_left(dtype: type, step: float) -> None:
    values = np.random.default_rng(0).normal(size=(8, 50))
    near, far = (values * (1 + factor * step) for factor in (1, 1000))
    assert is_reached(values.astype(dtype), near.astype(dtype), rectified=False)
    assert not is_reached(values.astype(dtype), far.astype(dtype), rectified=False)


def test_only_positive_parts_count_in_front_of_a_rectifier() -> None:
    values = np.random.default_rng(0).normal(size=(8, 50)).astype(np.float32)
    lower = np.where(values < 0, 3 * values, values)
    assert is_reached(values, lower, rectified=True)
    assert not is_reached(values, lower, rectified=False)
    assert not is_reached(values, -lower, rectified=True)


def test_what_is_not_finite_is_not_reached() -> None:
    values = np.array([1, np.nan], np.float32)
    assert not is_reached(values, values, rectified=True)
    large = np.array([1e30, 1], np.float32)  # whose squares are not
    assert not is_reached(large, 2 * large, rectified=True)


def test_a_tensor_that_another_node_reads_is_not_only_rectified() -> None:
    net = Net(x=("n", 4))
    first = net("MatMul", "x", net.weight(4, 4), name="first")
    second = net("MatMul", net("Relu", first), net.weight(4, 4), name="second")
    found = GraphIndex(net.model(net("Add", net("Relu", second), first)).graph)
    assert [is_only_rectified(found, name) for name in ("first", "second")] == [False, True]

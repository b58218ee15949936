"""Which gaps get an adapter: all that need one, and those where none in front could take its work."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.graph.surgery import adapter_output
from redtest_onnx.pruning.apply import _gaps, apply_plan, apply_with_adapters
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

CPU = rt.RunOptions("cpu", 1)


def step(entry: str, exit_: str, action: str = "bypass") -> Step:
    return Step(exit_, entry, exit_, action, None, 0, 0)


def plan(*steps: Step) -> Plan:
    return Plan("test", "", steps)


def bench_of(model: rt.Model) -> Workbench:
    return Workbench(model, rt.open_data(None, model, count=8), CPU)


@cache
def chain() -> Workbench:
    """p0 r0 p1 r1 p2 r2 p3 p4: products, the first three with a Relu behind."""
    net = Net(x=("n", 4))
    source = "x"
    for k in range(3):
        source = net("Relu", net("MatMul", source, net.weight(4, 4), name=f"p{k}"), name=f"r{k}")
    source = net("MatMul", source, net.weight(4, 4), name="p3")
    return bench_of(net.model(net("MatMul", source, net.weight(4, 2), name="p4")))


def adapters(model: rt.Model) -> set[str]:
    return {
        name.partition("/adapter")[0] for node in model.graph.node for name in node.output if "/ad" in name
    }


def test_layers_directly_behind_one_another_are_one_gap() -> None:
    a, b, c, d = step("x", "a"), step("a", "b"), step("q", "c"), step("c", "d")
    assert _gaps([a, b, c, d]) == [[a, b], [c, d]]
    assert _gaps([a, c]) == [[a], [c]]
    other = step("a", "b", "adapter")
    assert _gaps([a, other]) == [[a], [other]]
    assert _gaps([other, step("b", "z")]) == [[other], [step("b", "z")]]
    assert _gaps([other, step("b", "z", "adapter")]) == [[other], [step("b", "z", "adapter")]]
    assert _gaps([]) == []


def test_a_bypass_hands_on_what_came_in() -> None:
    found = apply_plan(chain(), plan(step("r0", "r1")))
    assert [node.output[0] for node in found.graph.node] == ["p0", "r0", "p2", "r2", "p3", "p4"]
    assert found.graph.node[2].input[0] == "r0"
    assert adapters(found) == set()
    assert apply_plan(chain(), plan()).sha256 == chain().model.sha256


def test_behind_an_activation_every_gap_gets_one_adapter() -> None:
    found = apply_with_adapters(chain(), plan(step("r0", "r1"), step("r1", "r2")), 1)
    assert found.exits == {"r2"}
    assert adapters(found.model) == {"r2"}
    kinds = [
        n.op_type for n in found.model.graph.node if n.output[0].startswith(adapter_output("r2", 0)[:-1])
    ]
    assert kinds == ["MatMul", "Add", "Relu"]
    two = apply_with_adapters(chain(), plan(step("x", "r0"), step("r1", "r2")), 1)
    assert two.exits == {"r0", "r2"}
    feeds = chain().sample
    np.testing.assert_array_equal(Session(two.model, CPU).run(feeds)["p4"].shape, (1, 2))


def test_an_adapter_that_is_needed_is_no_extra_one() -> None:
    net = Net(x=("n", 4))
    first = net("Relu", net("MatMul", "x", net.weight(4, 4), name="p0"), name="r0")
    net("Relu", net("MatMul", first, net.weight(4, 6), name="p1"), name="r1")
    bench = bench_of(net.model(net("MatMul", "r1", net.weight(6, 2), name="y")))
    found = apply_with_adapters(bench, plan(step("r0", "r1", "adapter")), 1)
    assert found.exits == frozenset()
    assert adapters(found.model) == adapters(apply_plan(bench, plan(step("r0", "r1", "adapter")))) == {"r1"}


def test_an_operator_in_front_takes_the_adapter_in() -> None:
    net = Net(x=("n", 4))
    source = "x"
    for k in range(3):
        source = net("MatMul", source, net.weight(4, 4), name=f"p{k}")
    bench = bench_of(net.model(net("MatMul", source, net.weight(4, 2), name="y")))
    found = apply_with_adapters(bench, plan(step("p0", "p1")), 1)
    assert (found.exits, adapters(found.model)) == (frozenset(), set())
    behind_input = apply_with_adapters(bench, plan(step("x", "p0")), 1)
    assert behind_input.exits == {"p0"}  # nothing in front that could


def test_where_others_read_what_is_in_front_the_gap_gets_its_own() -> None:
    net = Net(x=("n", 4))
    source = net("MatMul", "x", net.weight(4, 4), name="p0")
    last = net("MatMul", net("MatMul", source, net.weight(4, 4), name="p1"), net.weight(4, 4), name="p2")
    bench = bench_of(net.model(net("Add", last, source, name="y")))
    assert apply_with_adapters(bench, plan(step("p0", "p1")), 1).exits == {"p1"}


@pytest.mark.parametrize(
    ("shape", "operator", "fits"),
    [
        ((4,), "MatMul", True),
        ((5, 4), "MatMul", True),
        ((4, 5), "Conv", True),  # lines: their channels stand in front
        ((4, 5, 5), "Conv", True),
        ((4, 3, 5, 5), "Conv", False),  # which is not fitted
        ((2, 3, 5, 4), "MatMul", False),
    ],
)
def test_adapters_stand_where_they_can_be_fitted(shape: tuple[int, ...], operator: str, fits: bool) -> None:
    net = Net(x=("n", *shape))

    def linear(source: str, name: str) -> str:
        if operator == "MatMul":
            return net("MatMul", source, net.weight(4, 4), name=name)
        return net("Conv", source, net.weight(4, 4, *[1] * (len(shape) - 1)), name=name)

    first = net("Relu", linear("x", "p0"), name="r0")
    second = net("Relu", linear(first, "p1"), name="r1")
    bench = bench_of(net.model(linear(second, "y")))
    found = apply_with_adapters(bench, plan(step("r0", "r1")), 3)
    assert found.exits == ({"r1"} if fits else frozenset())
    assert adapters(found.model) == ({"r1"} if fits else set())
    if operator == "Conv" and fits:
        made = next(node for node in found.model.graph.node if node.output[0] == adapter_output("r1", 0))
        assert found.model.initializers[made.input[1]].dims[2:] == [3] * (
            len(shape) - 1
        )  # of the size asked for

"""What counts as a difference, on arrays: tolerance, shapes, NaN, and what is not compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.pruning.divergence import (
    Divergence,
    _differing,
    _stand_ins,
    _tolerance,
    finite,
    first_infinite,
)
from redtest_onnx.pruning.plan import Step
from redtest_onnx.runtime.workbench import Workbench


def index() -> GraphIndex:
    net = Net(x=("n", 4))
    net("Tanh", net("Relu", "x", name="a"), name="b")
    return GraphIndex(net.model("b").graph)


def differing(expected: Any, found: Any, share: float = 0.5) -> list[Divergence]:
    return list(_differing(index(), ["a"], {"a": expected}, {"a": found}, share))


def array(*values: float, dtype: type = np.float32) -> np.ndarray[Any, Any]:
    return np.array(values, dtype)


@pytest.mark.parametrize(
    ("expected", "found", "difference"),
    [
        (array(4, 1), array(4, 3), None),  # exactly half of the largest value
        (array(4, 1), array(4, 3.125), 2.125),
        (array(4, 1), array(1, 1), 3.0),
        (array(-4, 1), array(-4, -1), None),
        (array(-4, 1), array(-4, -1.5), 2.5),
        (array(0, 0), array(0, 1e-20), 1e-20),  # no largest value
        (array(4, np.nan), array(4, np.nan), None),
        (array(4, np.nan), array(4, 1), np.inf),
        (array(4, 1), array(4, np.nan), 0.0),
        (array(np.inf, 1), array(np.inf, 1), None),
        (array(np.inf, 1), array(np.inf, 2), 1.0),  # an infinity is no measure of the others
        (array(np.inf, 1), array(-np.inf, 1), np.inf),
        (array(np.inf, 1), array(np.nan, 1), np.inf),
        (array(3, 8, dtype=np.int64), array(3, 12, dtype=np.int64), None),
        (array(3, 8, dtype=np.int64), array(3, 13, dtype=np.int64), 5.0),
        (array(True, False, dtype=np.bool_), array(True, True, dtype=np.bool_), 1.0),
        (array(3, 8, dtype=np.uint8), array(3, 2, dtype=np.uint8), 6.0),
        (np.array(["a"]), np.array(["b"]), None),
        (np.zeros((0, 3)), np.zeros((0, 4)), None),
        ([1.0], [2.0], None),
    ],
)
def test_differences_are_a_share_of_the_largest_value(
    expected: Any, found: Any, difference: float | None
) -> None:
    result = differing(expected, found)
    if difference is None:
        assert result == []
        return
    (one,) = result
    assert (one.tensor, one.node) == ("a", "node_a")
    assert one.difference == pytest.approx(difference)
    known = expected[np.isfinite(expected)]
    assert one.largest == pytest.approx(float(np.max(np.abs(known))))


def test_other_shapes_are_a_difference_of_unknown_size() -> None:
    (one,) = differing(np.zeros((2, 3)), np.zeros((3, 2)))
    assert np.isnan(one.difference)
    assert np.isnan(one.largest)
    both = {"a": np.zeros(2), "b": np.ones(2)}
    others = {"a": np.zeros(3), "b": np.zeros(2)}
    assert [each.tensor for each in _differing(index(), ["a", "b"], both, others, 0.1)] == ["a", "b"]


def test_a_divergence_says_where_and_how_much() -> None:
    assert str(Divergence("t", "the node", 0.125, 1234.5)) == (
        "the first tensor that differs is 't', made by the node: by 0.125 where its values reach 1.23e+03"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (array(1, 2), True),
        (array(1, np.inf), False),
        (array(np.nan, 1), False),
        (array(1, np.inf, dtype=np.float64), False),
        (array(1, 2, dtype=np.int64), True),
        (np.array(["inf"]), True),
        ([float("inf")], True),
        (None, True),
        (np.zeros(0, np.float32), True),
    ],
)
def test_only_arrays_of_numbers_can_be_infinite(value: object, expected: bool) -> None:
    assert finite(value) is expected


@pytest.mark.parametrize(
    ("weights", "inputs", "expected"),
    [
        (np.float32, onnx.TensorProto.FLOAT, 1e-4),
        (np.float64, onnx.TensorProto.FLOAT, 1e-4),
        (np.float16, onnx.TensorProto.FLOAT, 2e-2),
        (np.float32, onnx.TensorProto.FLOAT16, 2e-2),
        (np.float16, onnx.TensorProto.BFLOAT16, 1e-1),
    ],
)
def test_the_least_precise_type_sets_the_tolerance(weights: type, inputs: int, expected: float) -> None:
    net = Net()
    net.add_input("x", inputs, ["n", 4])
    net.store(np.ones(4), weights)
    net("Identity", "x", name="y")
    assert _tolerance(net.model("y")) == expected


def step(entry: str, exit_: str, action: str) -> Step:
    return Step(exit_, entry, exit_, action, None, 0, 0)


def test_what_stands_in_for_an_exit_is_followed_through_gaps_and_adapters() -> None:
    net = Net(x=("n", 4))
    first = net("Relu", net("Relu", "x", name="c/adapter0"), name="c/adapter1")
    net("Relu", first, name="f/adapter1")
    kept = GraphIndex(net.model("f/adapter1").graph)
    steps = [
        step("x", "a", "bypass"),
        step("a", "b", "bypass"),
        step("b", "c", "adapter"),
        step("c", "d", "bypass"),
        step("e", "f", "adapter"),  # its adapter's first operator is not there: the operator in front took it
        step("q", "c2", "bypass"),
    ]
    found = _stand_ins(steps, kept)
    assert found == {"a": "x", "b": "x", "c": "c/adapter1", "d": "c/adapter1", "f": "e", "c2": "q"}


def test_the_first_infinite_tensor_is_named_with_what_makes_it() -> None:
    net = Net(x=("n", 2))
    large = net("Exp", net("Mul", "x", net.store(0.0), name="zero"), name="one")
    net("Add", net("Div", large, net.store(0.0), name="inf"), large, name="y")
    model = net.model("y")
    bench = Workbench(model, rt.open_data(None, model, count=4), rt.RunOptions("cpu", 1))
    assert first_infinite(bench) == "'inf', made by node_inf"
    calm = Net(x=("n", 2))
    calm("Tanh", "x", name="y")
    model = calm.model("y")
    assert (
        first_infinite(Workbench(model, rt.open_data(None, model, count=4), rt.RunOptions("cpu", 1))) is None
    )

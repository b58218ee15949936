"""Where channels are, as the operators around a tensor tell."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from nets import Net
from onnx import TensorProto

import redtest_onnx as rt
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.shapes import Shapes
from redtest_onnx.layers.layout import (
    channel_axis,
    channels_first,
    channels_last,
    sequence_channels_first,
)


def axis(write: Callable[[Net], object], tensor: str = "t", rank: int = 4) -> int | None:
    net = Net(x=(1, 4, 4, 4) if rank == 4 else (1, 4, 4))
    write(net)
    return channel_axis(GraphIndex(net.model(net.nodes[-1].output[0]).graph), tensor, rank)


def test_what_makes_a_tensor_tells_first() -> None:
    def convolution(net: Net) -> None:
        net("MatMul", net.conv("x", 4, 4, name="t"), net.weight(4, 4))

    def product(net: Net) -> None:
        net.conv(net("MatMul", "x", net.weight(4, 4), name="t"), 4, 4)

    assert axis(convolution) == 1
    assert axis(product) == 3


def test_pointwise_operators_are_looked_behind() -> None:
    def behind(net: Net) -> None:
        net(
            "Concat", net("Relu", net("Add", net.conv("x", 4, 4), net.weight(4, 1, 1))), "x", name="t", axis=1
        )

    assert axis(behind) == 1


@pytest.mark.parametrize(
    ("perm", "expected"),
    [([0, 2, 3, 1], 3), ([0, 3, 1, 2], 2), ([0, 1, 2, 3], 1), ([1, 0, 2, 3], 0)],
)
def test_a_transposition_moves_the_channels(perm: list[int], expected: int) -> None:
    def turned(net: Net) -> None:
        net("Transpose", net("Relu", net.conv("x", 4, 4)), perm=perm, name="t")

    assert axis(turned) == expected


def test_transpositions_add_up() -> None:
    def twice(net: Net) -> None:
        once = net("Transpose", net.conv("x", 4, 4), perm=[0, 2, 3, 1])
        net("Transpose", net("Relu", once), perm=[0, 2, 1, 3], name="t")

    def back(net: Net) -> None:
        once = net("Transpose", net.conv("x", 4, 4), perm=[0, 2, 3, 1])
        net("Transpose", net("Relu", once), perm=[0, 3, 1, 2], name="t")

    assert (axis(twice), axis(back)) == (3, 1)


def test_else_what_reads_it_tells() -> None:
    def convolved(net: Net) -> None:
        net.conv(net("Reshape", "x", net.store([1, 4, 4, 4], np.int64), name="t"), 4, 4)

    def multiplied(net: Net) -> None:
        net("MatMul", net("Reshape", "x", net.store([1, 4, 4, 4], np.int64), name="t"), net.weight(4, 4))

    def turned(net: Net) -> None:
        front = net(
            "Transpose", net("Reshape", "x", net.store([1, 4, 4, 4], np.int64), name="t"), perm=[0, 3, 1, 2]
        )
        net.conv(front, 4, 4)

    def weight(net: Net) -> None:
        net("MatMul", "x", net("Reshape", net.weight(4, 4), net.store([4, 4], np.int64), name="t"))

    def unread(net: Net) -> None:
        net("Relu", net("Reshape", "x", net.store([1, 4, 4, 4], np.int64), name="t"))

    assert [axis(each) for each in (convolved, multiplied, turned, weight, unread)] == [1, 3, 3, None, None]


def test_where_nothing_tells_there_is_no_axis() -> None:
    def read_only(net: Net) -> None:
        net("Relu", net("Tanh", "x", name="t"))

    def of_other_rank(net: Net) -> None:
        split = net("Reshape", net.conv("x", 4, 4), net.store([1, 2, 2, 4, 4], np.int64))
        net(
            "Reshape",
            net("Transpose", split, perm=[0, 2, 1, 3, 4], name="t"),
            net.store([1, 4, 16], np.int64),
        )

    assert axis(read_only) is None
    assert axis(of_other_rank) is None


@pytest.mark.parametrize(("count", "expected"), [(62, 1), (63, 1), (64, None)])
def test_no_further_than_sixty_four_operators_back(count: int, expected: int | None) -> None:
    def far(net: Net) -> None:
        source = net.conv("x", 4, 4)
        for _ in range(count - 1):
            source = net("Relu", source)
        net("Relu", source, name="t")

    assert axis(far) == expected


def test_sequences_and_images_are_told_apart() -> None:
    net = Net(x=(1, 4, 4, 4))
    first = net("Transpose", net.conv("x", 4, 4, name="front"), perm=[0, 2, 3, 1], name="behind")
    net("Relu", first, name="y")
    index = GraphIndex(net.model("y").graph)
    assert channels_last(index, "behind", 4)
    assert not channels_last(index, "front", 4)
    assert channels_first(index, "front", "behind", 4)
    assert not channels_first(index, "behind", "y", 4)


@pytest.mark.parametrize(("rank", "operator", "expected"), [(3, "Conv", True), (3, "MatMul", False)])
def test_lines_have_their_channels_in_front_where_convolutions_lie_between(
    rank: int, operator: str, expected: bool
) -> None:
    net = Net(x=(1, 4, 4))
    a = net("Relu", "x", name="a")
    if operator == "Conv":
        net("Conv", a, net.weight(4, 4, 1), name="b")
    else:
        net("MatMul", a, net.weight(4, 4), name="b")
    index = GraphIndex(net.model("b").graph)
    assert not channels_last(index, "b", rank)  # only images are stored otherwise
    assert channels_first(index, "a", "b", rank) is expected
    assert not channels_first(index, "a", "b", 2)


def turned_convolution(inputs: int, outputs: int) -> tuple[GraphIndex, Shapes]:
    """ids -> [n, t, C] -> Transpose, Conv, Transpose beside a product, as Conformers have it."""
    net = Net()
    ids = net.add_input("ids", TensorProto.INT64, [2, 7])
    entry = net("Gather", net.weight(9, inputs), ids, name="entry")
    front = net("Transpose", entry, perm=[0, 2, 1])
    made = net("Conv", front, net.weight(outputs, inputs, 3), pads=[1, 1], name="inner")
    back = net("Transpose", made, perm=[0, 2, 1])
    beside = net("MatMul", entry, net.weight(inputs, outputs))
    net("Add", net("Identity", beside), back, name="exit")
    model = net.model("exit")
    return GraphIndex(model.graph), rt.open_workbench(model).shapes


@pytest.mark.parametrize(("inputs", "outputs"), [(7, 7), (4, 6)])
def test_a_convolution_between_transpositions_keeps_channels_behind(inputs: int, outputs: int) -> None:
    """Also where there are as many positions as channels, which sizes can't tell apart."""
    index, shapes = turned_convolution(inputs, outputs)
    assert shapes.sizes["exit"] == (2, 7, outputs)
    assert not channels_first(index, "entry", "exit", 3)
    nodes = index.between("entry", "exit")
    assert [sequence_channels_first(index, name, 3, nodes) for name in ("exit", "inner")] == [False, True]


def test_of_two_that_are_added_the_second_may_tell() -> None:
    net = Net()
    ids = net.add_input("ids", TensorProto.INT64, [2, 7])
    silent = net("Gather", net.weight(9, 4), ids)
    net("Add", silent, net("MatMul", silent, net.weight(4, 4)), name="t")
    assert channel_axis(GraphIndex(net.model("t").graph), "t", 3) == 2

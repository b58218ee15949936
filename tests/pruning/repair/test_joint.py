"""How much of a pair of operators is held, and which pairs there are."""

from __future__ import annotations

import numpy as np
import pytest
from nets import Net

from redtest_onnx.graph.linear_operators import linear_operators
from redtest_onnx.pruning.repair.pairs import PairValues


@pytest.mark.parametrize(
    ("density", "size", "expected"),
    [
        (8, 16, 4),  # of images so large, 16 samples at least
        (8, 4, 14),  # a quarter of 16 positions of each sample makes 8 rows for each of 27 unknowns
        (1, 16, 1),
    ],
)
def test_no_more_is_held_than_a_fit_needs(density: int, size: int, expected: int) -> None:
    net = Net(x=[None, 3, size, size])
    operator = linear_operators(net.model(net.conv("x", 3, 4)))[0]
    assert operator.unknowns((4, 3, size, size)) == 27
    values = PairValues()
    for _ in range(expected + 3):
        inner = np.zeros((4, 4, size, size), np.float32)
        values.hold(np.zeros((4, 3, size, size), np.float32), inner, operator, density)
    assert values.full
    assert len(values.inputs) == len(values.inner)
    assert sum(map(len, values.inner)) == 4 * expected


def test_nothing_is_held_beyond_the_limit() -> None:
    net = Net(x=[None, 6])
    operator = linear_operators(net.model(net("MatMul", "x", net.weight(6, 6))))[0]
    one = np.zeros((5, 6), np.float32)
    values = PairValues(4 * one.nbytes)
    for _ in range(5):
        values.hold(one, one, operator, 10**6)
    assert values.full
    assert len(values.inputs) == 2

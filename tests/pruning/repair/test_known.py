"""What fits keep for one another: no more than there is room for, and each session once."""

from __future__ import annotations

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.pruning.repair.known import KnownValues
from redtest_onnx.runtime.session import Session


@pytest.mark.parametrize(
    ("limit", "kept"), [(0, []), (31, []), (32, [0]), (63, [0]), (64, [0, 1]), (95, [0, 1]), (96, [0, 1, 2])]
)
def test_values_are_kept_up_to_a_limit(limit: int, kept: list[int]) -> None:
    known = KnownValues(limit)
    values = [np.full(4, float(run)) for run in range(3)]
    for run, value in enumerate(values):
        known.keep("t", run, value)
        known.keep("t", run, value)  # counts once
    assert [run for run in range(3) if known.value("t", run) is values[run]] == kept
    assert [run for run in range(3) if known.value("t", run) is not None] == kept
    assert known.value("other", 0) is None


def test_sessions_are_opened_once_and_the_longest_unused_is_given_up() -> None:
    net = Net(x=("n", 2))
    model = net.model(net("Relu", "x", name="y"))
    opened: list[int] = []
    known = KnownValues()

    def session(key: int, size: int = 0) -> Session:
        def make() -> Session:
            opened.append(key)
            return Session(model, rt.RunOptions("cpu", 1))

        return known.session(key, size, make)

    first = session(0)
    assert session(0) is first
    for key in range(1, 8):
        session(key)
    assert session(0) is first  # eight are kept, and this one was used last
    session(8)
    assert opened == list(range(9))
    session(0)
    session(1)
    assert opened == [*range(9), 1]
    assert session(0, 1 << 23) is first
    assert session(0, (1 << 23) + 1) is not first  # too large to be kept

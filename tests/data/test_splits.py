"""Which samples are held out: how many, and that none of them is fitted to."""

from __future__ import annotations

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.data.splits import Splits, fit_indices, holdout_indices, without_holdout


def samples(count: int) -> rt.Dataset:
    net = Net(x=["n", 1])
    model = net.model(net("Relu", "x"))
    return rt.open_data({"x": np.zeros((count, 1), np.float32)}, model)


@pytest.mark.parametrize(
    ("count", "held_out"),
    [
        (4, 2),  # half of the fewest
        (12, 4),  # no fewer than four
        (300, 100),  # a third of few
        (1000, 256),  # no more of few than half of the most
        (2000, 400),  # a fifth of many
        (9000, 512),  # the most
    ],
)
def test_the_end_of_the_order_is_held_out(count: int, held_out: int) -> None:
    data = samples(count)
    held, fitted = holdout_indices(data, 3), fit_indices(data, 3)
    assert len(held) == held_out
    assert len(fitted) == min(count - held_out, 2048)
    assert len({*held.tolist(), *fitted.tolist()}) == len(held) + len(fitted)
    assert len(without_holdout(data, 3)) == count - held_out


def test_candidates_are_chosen_and_judged_on_the_same_samples_which_the_seed_decides() -> None:
    parts, others = Splits.of(samples(100), 0), Splits.of(samples(100), 1)
    np.testing.assert_array_equal(parts.choose, parts.judge)
    assert set(parts.choose.tolist()) != set(others.choose.tolist())

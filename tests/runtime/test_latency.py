"""Times of layers by themselves, and how often models are run for theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import redtest_onnx as rt
from redtest_onnx.runtime.latency import _more, _Times, measure_layers
from redtest_onnx.runtime.workbench import Workbench

MODELS = Path(__file__).parents[2] / "models"


def test_each_layer_is_timed_by_itself() -> None:
    model = rt.load(MODELS / "vit_digits.onnx")
    bench = Workbench(model, rt.open_data(None, model), rt.RunOptions("cpu"))
    layers = bench.layers()
    found = measure_layers(bench, layers)
    assert [value is None for value in found] == [layer.input is None for layer in layers]
    assert all(value > 0 for value in found if value is not None)


def timed(turns: list[float], in_a_row: int) -> _Times:
    """Turns of so many runs, all of which took as long as their median."""
    clock = [float(turn) for turn in np.repeat(turns, in_a_row)]
    return _Times(clock, clock, [float(turn) for turn in turns])


@pytest.mark.parametrize(
    ("in_a_row", "turns", "passed", "more"),
    [
        (1, 2, 0.2, True),
        (1, 3, 0.3, False),  # three runs that agree tell enough of a slow model
        (1, 2, 30.0, True),
        (5, 4, 0.01, True),
        (5, 5, 0.01, False),
        (2, 5, 0.2, True),  # ten runs are few
        (2, 5, 0.6, False),  # half the time is enough where they agree
        (2, 5, 1.1, False),
    ],
)
@pytest.mark.parametrize("models", [1, 2])
def test_runs_that_agree_need_no_more(
    in_a_row: int, turns: int, passed: float, more: bool, models: int
) -> None:
    times = [timed([50.0 * (model + 1)] * turns, in_a_row) for model in range(models)]
    assert _more(times, passed, 1.0) is more


@pytest.mark.parametrize(("passed", "more"), [(0.4, True), (1.1, False)])
def test_runs_that_differ_need_more_while_there_is_time(passed: float, more: bool) -> None:
    times = [timed([50.0, 80.0, 51.0, 90.0], 1), timed([70.0, 50.0, 90.0, 50.0], 1)]
    assert _more(times, passed, 1.0) is more
    assert _more(times[:1], passed, 1.0) is more

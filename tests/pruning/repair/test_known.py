"""What fits have in common changes nothing but the time they take, and last bits."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

import redtest_onnx as rt
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning.candidates import plain_model
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.repair.known import KnownValues
from redtest_onnx.pruning.repair.partial_runner import for_size
from redtest_onnx.pruning.repair.refit import Effort
from redtest_onnx.pruning.repair.repair import FitSettings, fit_to_original
from redtest_onnx.runtime.session import RunOptions, Session
from redtest_onnx.runtime.workbench import Workbench

MODELS = Path(__file__).parents[3] / "models"


@cache
def bench() -> Workbench:
    model = rt.load(MODELS / "resnet_digits.onnx")
    return Workbench(model, rt.open_data(MODELS / "digits.npz", model), RunOptions("cpu", 1))


def fitted(layers: tuple[str, ...], known: KnownValues | None) -> Model:
    chosen = [Step.of(layer) for layer in bench().layers() if layer.name in layers]
    plan = Plan("test", bench().digest, tuple(chosen))
    effort = Effort(1, 5, known, diagnose=False)
    settings = FitSettings("refit", np.arange(48), effort=effort)
    found, refits = fit_to_original(bench(), plain_model(bench(), plan), plan, settings)
    assert refits
    assert all(fit.rank is None and fit.condition is None for fit in refits)
    return found


@pytest.mark.parametrize("limit", [0, 100_000, 1 << 27])
def test_fits_that_share_what_they_found_find_the_same(limit: int) -> None:
    known = KnownValues(limit)
    for layers in (("blocks.22", "blocks.25"), ("blocks.20", "blocks.22", "blocks.25"), ("blocks.25",)):
        alone, sharing = fitted(layers, None), fitted(layers, known)
        for one, other in zip(alone.graph.initializer, sharing.graph.initializer, strict=True):
            values = (onnx.numpy_helper.to_array(tensor) for tensor in (one, other))
            # What lies in front is computed with it, or isn't: kernels may round otherwise.
            np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-5)


def test_values_are_kept_up_to_the_limit() -> None:
    known = KnownValues(100)
    value = np.zeros(20, np.float32)
    known.keep("a", 0, value)
    known.keep("b", 0, value)
    assert known.value("a", 0) is value
    assert known.value("b", 0) is None
    assert known.value("a", 1) is None


def test_sessions_are_kept_where_runs_are_small() -> None:
    opened: list[int] = []

    def make() -> Session:
        opened.append(1)
        return Session(bench().model, bench().options)

    known = KnownValues()
    assert known.session("small", 10, make) is known.session("small", 10, make)
    assert known.session("large", 1 << 30, make) is not known.session("large", 1 << 30, make)
    assert len(opened) == 3


def test_small_runs_stay_on_one_thread() -> None:
    options = RunOptions("cpu", 4)
    assert for_size(options, [1000, 2000]).threads == 1
    assert for_size(options, [1 << 30]).threads == 4
    assert for_size(options, [1000, None]).threads == 4

"""Steps for a pair of operators against NumPy: slopes, moves, the length of a step, and what is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.data.arrays import ArrayData
from redtest_onnx.graph.linear_operators import LinearOperator
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.pruning.repair import joint as module
from redtest_onnx.pruning.repair.joint import JointRefit
from redtest_onnx.pruning.repair.known import KnownValues
from redtest_onnx.pruning.repair.pairs import PairValues
from redtest_onnx.pruning.repair.partial_runner import PartialRunner
from redtest_onnx.pruning.repair.working_model import WorkingModel
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

CPU = rt.RunOptions("cpu", 1)
COUNT, SIZE = 40, 16
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class Pair:
    """x -> first [4, 5] + bias -> Tanh -> second [5, 3], with goals that were drawn."""

    refit: JointRefit
    working: WorkingModel
    values: PairValues
    x: Array
    goals: Array
    operators: tuple[LinearOperator, LinearOperator]

    def weights(self) -> tuple[Array, Array, Array]:
        model = self.working.model
        found = [model.value(model.initializers[name]).astype(np.float64) for name in ("w0", "w1", "w2")]
        return found[0], found[1], found[2]

    def error(self) -> float:
        first, bias, second = self.weights()
        return float(np.square(self.goals - np.tanh(self.x @ first + bias) @ second).sum())


def pair(noise: float = 0.5, function: str = "Tanh") -> Pair:
    rng = np.random.default_rng(0)
    net = Net(x=("n", 4))
    weights = rng.normal(size=(4, 5)) / 2, rng.normal(size=5) / 4, rng.normal(size=(5, 3))
    first = net("Add", net("MatMul", "x", net.store(weights[0])), net.store(weights[1]), name="first")
    net("MatMul", net(function, first, name="bent"), net.store(weights[2]), name="second")
    model = net.model("second")
    x = rng.normal(size=(COUNT, 4)).astype(np.float32)
    other = [weight + noise * rng.normal(size=weight.shape) for weight in weights]
    goals = np.tanh(x @ other[0] + other[1]) @ other[2]
    bench = Workbench(model, ArrayData.in_memory("drawn", {"x": x}), CPU)
    working = WorkingModel(model)
    runner = PartialRunner(bench.successor(working.model), np.arange(COUNT), size=SIZE)
    operators = working.operators[0], working.operators[1]
    assert [operator.target for operator in operators] == ["first", "second"]
    values = PairValues()
    for found in runner.values(["x", "first"]):
        values.hold(found["x"], found["first"], operators[0], 300)
    cut = [goals[start : start + SIZE].astype(np.float32) for start in range(0, COUNT, SIZE)]
    refit = JointRefit(runner, working, operators, values, cut.__getitem__, 300, KnownValues())
    return Pair(refit, working, values, x, goals, operators)


def test_slopes_are_those_of_the_function() -> None:
    made = pair()
    first, bias, _ = made.weights()
    for run in range(3):
        part = slice(SIZE * run, SIZE * run + SIZE)
        expected = 1 - np.tanh(made.x[part] @ first + bias) ** 2
        np.testing.assert_allclose(made.refit._slopes(run), expected, atol=2e-4)


def test_slopes_of_a_rectifier_need_no_run() -> None:
    made = pair(function="Relu")
    made.values.inner[0][:2] = [[0.005, -0.005, 0.0, 0.02, -0.02], [0.009, -0.011, 1.0, -1.0, 0.01]]
    found = made.refit._slopes(0)
    made.refit._rectifies = False
    np.testing.assert_allclose(found, made.refit._slopes(0), atol=1e-5)
    np.testing.assert_allclose(found[0], [0.75, 0.25, 0.5, 1.0, 0.0], atol=1e-6)


def test_a_move_is_what_a_step_adds_to_the_first_operator() -> None:
    made = pair()
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=(5, 4)), rng.normal(size=5)
    for run in range(3):
        part = slice(SIZE * run, SIZE * run + SIZE)
        expected = made.x[part] @ weight.T + bias
        np.testing.assert_allclose(made.refit._moved(run, weight, bias), expected, rtol=1e-4, atol=1e-5)


def test_errors_come_back_through_the_second_operator() -> None:
    made = pair()
    _, _, second = made.weights()
    error = np.random.default_rng(1).normal(size=(SIZE, 3)).astype(np.float32)
    found = made.refit._back(error, second.T.astype(np.float32), np.zeros((SIZE, 5), np.float32))
    np.testing.assert_allclose(found, error @ second.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factor", [-3.0, 0.1, 0.3, 1.0, 2.0, 4.0, 9.0])
def test_the_length_of_a_step_is_found_downhill_from_a_half(factor: float) -> None:
    """The whole step leads to the goal where the factor is one, beyond it where it is less."""
    made = pair(noise=0.0)
    rng = np.random.default_rng(2)
    first, bias, second = made.weights()
    weight, shift = 0.2 * rng.normal(size=(5, 4)), 0.2 * rng.normal(size=5)
    goals = np.tanh(made.x @ (first + factor * weight.T) + bias + factor * shift) @ second
    cut = [goals[start : start + SIZE].astype(np.float32) for start in range(0, COUNT, SIZE)]
    made.refit._goal = cut.__getitem__
    lengths = module._LENGTHS
    errors = [
        float(np.square(goals - np.tanh(made.x @ (first + k * weight.T) + bias + k * shift) @ second).sum())
        for k in lengths
    ]
    runner = made.refit._runner
    behind = runner.part(["bent", "second"], made.refit._given(0))
    moves = [made.refit._moved(run, weight, shift) for run in range(3)]
    found, left = made.refit._length(behind, moves)
    assert errors[lengths.index(found)] == pytest.approx(min(errors), rel=1e-3)
    assert left == pytest.approx(errors[lengths.index(found)], rel=1e-3, abs=1e-6)


def test_a_step_moves_weights_and_held_values_alike_and_tells_what_is_left() -> None:
    made = pair()
    before = made.error()
    behind = made.refit._runner.part(["bent", "second"], made.refit._given(0))
    left = made.refit._step(behind)
    assert left is not None
    assert left == pytest.approx(made.error(), rel=1e-3)
    assert made.error() < 0.9 * before
    first, bias, _ = made.weights()
    held = np.concatenate(made.values.inner)
    np.testing.assert_allclose(held, made.x @ first + bias, rtol=1e-4, atol=1e-5)


def test_a_step_that_does_not_help_moves_nothing() -> None:
    made = pair(noise=0.0)
    first, bias, second = made.weights()
    behind = made.refit._runner.part(["bent", "second"], made.refit._given(0))
    assert made.refit._step(behind) is None
    for now, then in zip(made.weights(), (first, bias, second), strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_second_operator_is_solved_for_what_the_first_gives() -> None:
    made = pair()
    before = made.error()
    behind = made.refit._runner.part(["bent", "second"], made.refit._given(0))
    assert made.refit._solve_second(behind)
    first, bias, second = made.weights()
    hidden = np.tanh(made.x @ first + bias)
    best = np.linalg.lstsq(hidden, made.goals, rcond=None)[0]
    least = np.square(made.goals - hidden @ best).sum()
    assert least <= np.square(made.goals - hidden @ second).sum() < least + 0.2 * (before - least)


def test_rounds_end_where_they_gain_little() -> None:
    made = pair()
    before = made.error()
    assert made.refit.rounds(0) == 0
    assert made.error() == before
    assert made.refit.rounds(1) == 1
    once = made.error()
    assert once < before
    again = pair()
    done = again.refit.rounds(30)
    assert 1 <= done < 30
    assert again.error() <= once
    assert pair(noise=0.0).refit.rounds(5) == 0


@pytest.mark.parametrize(("limit", "expected"), [(SIZE, 1), (SIZE + 1, 2), (256, 3)])
def test_only_some_samples_choose_the_length(
    limit: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TRIED_ON", limit)
    made = pair()
    behind = made.refit._runner.part(["bent", "second"], made.refit._given(0))
    answer = made.refit._answer(behind)
    assert answer is not None
    fit, curvature, errors = answer
    assert len(errors) == expected
    first, bias, second = made.weights()
    hidden = np.tanh(made.x @ first + bias)
    own = np.square(made.goals - hidden @ second).sum(axis=1)
    sums = [own[k : k + SIZE].sum() for k in range(0, COUNT, SIZE)]
    np.testing.assert_allclose(errors, sums[:expected], rtol=1e-4)
    slopes = 1 - hidden**2
    moments = np.mean(
        [
            slopes[k : k + SIZE].T @ slopes[k : k + SIZE] / len(slopes[k : k + SIZE])
            for k in range(0, COUNT, SIZE)
        ],
        axis=0,
    )
    np.testing.assert_allclose(curvature, (second @ second.T) * moments, rtol=1e-2, atol=1e-4)
    assert fit.weight.shape == (5, 4)


def test_sessions_of_runs_of_other_sizes_are_their_own() -> None:
    """Texts of several lengths: each size is padded in another way."""
    rng = np.random.default_rng(0)
    net = Net(x=("n", 4, "t"))
    first = net("Conv", "x", net.weight(5, 4, 3), pads=[1, 1], name="first")
    net("Conv", net("Relu", first), net.weight(3, 5, 3), pads=[1, 1], name="second")
    model = net.model("second")
    working = WorkingModel(model)
    bench = Workbench(model, ArrayData.in_memory("drawn", {"x": np.zeros((8, 4, 6), np.float32)}), CPU)
    runner = PartialRunner(bench.successor(working.model), np.arange(8), size=4)
    values = PairValues()
    for length in (6, 9):
        x = rng.normal(size=(4, 4, length)).astype(np.float32)
        values.inputs.append(x)
        values.inner.append(Session(expose(model, ["first"]), CPU).run({"x": x})["first"])
    operators = working.operators[0], working.operators[1]
    refit = JointRefit(runner, working, operators, values, lambda run: values.inner[run], 300, KnownValues())
    weight = rng.normal(size=(5, 12))
    kernel = weight.astype(np.float32).reshape(5, 4, 3)
    for run in (0, 1, 0):
        x = values.inputs[run]
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=2)
        expected = np.einsum("nctk,ock->not", windows, kernel)
        np.testing.assert_allclose(refit._moved(run, weight, np.zeros(5)), expected, rtol=1e-4, atol=1e-5)

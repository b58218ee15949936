"""Which rows an operator is fitted to, and which choose the penalty."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.graph.linear_operators import LinearOperator, linear_operators
from redtest_onnx.pruning.repair.equations import CHECK_EVERY, Equations

CPU = rt.RunOptions("cpu", 1)


def product(inputs: int = 3, outputs: int = 2) -> LinearOperator:
    net = Net(x=[None, inputs])
    return linear_operators(net.model(net("MatMul", "x", net.weight(inputs, outputs))))[0]


def added(equations: Equations, *counts: int) -> tuple[int, int]:
    """Rows to fit to and rows that check, once runs of so many samples were added."""
    rng = np.random.default_rng(0)
    for count in counts:
        x, error = rng.normal(size=(count, 3)), rng.normal(size=(count, 2))
        assert equations.add(x.astype(np.float32), error.astype(np.float32))
    assert equations._pair is not None
    return equations._pair[0].rows, equations._pair[1].rows


def test_the_end_of_a_run_checks() -> None:
    assert added(Equations(product(), 40, CPU), 20, 20) == (
        40 - 2 * (20 // CHECK_EVERY),
        2 * (20 // CHECK_EVERY),
    )


@pytest.mark.parametrize("runs", [CHECK_EVERY - 1, CHECK_EVERY, 3 * CHECK_EVERY + 1])
def test_of_small_runs_each_so_manyth_checks(runs: int) -> None:
    checking = 2 * (runs // CHECK_EVERY)
    assert added(Equations(product(), 2 * runs, CPU), *[2] * runs) == (2 * runs - checking, checking)


def test_equations_of_several_workers_are_those_of_one() -> None:
    operator = product()
    whole, first, second, empty = (Equations(operator, 60, CPU) for _ in range(4))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    error = (x @ rng.normal(size=(3, 2)) + rng.normal(scale=0.1, size=(60, 2))).astype(np.float32)
    halves = slice(0, 30), slice(30, 60)
    for equations, parts in ((whole, halves), (first, halves[:1]), (second, halves[1:])):
        for part in parts:
            assert equations.add(x[part], error[part])
    assert empty.merged(first) is first
    assert first.merged(empty) is first
    found, expected = first.merged(second).solve(), whole.solve()
    assert found is not None
    assert expected is not None
    np.testing.assert_allclose(found.weight, expected.weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.bias, expected.bias, rtol=1e-4, atol=1e-6)


def test_workers_whose_samples_give_few_rows_and_many_are_added_up() -> None:
    """Texts of other lengths: the kind of equations follows from the first run of each worker."""
    operator, rng = product(inputs=30), np.random.default_rng(2)
    true = rng.normal(size=(30, 2))
    parts = [rng.normal(size=(12, positions, 30)).astype(np.float32) for positions in (1, 20)]
    workers = [Equations(operator, 24, CPU, seed=k) for k in range(2)]
    whole = Equations(operator, 24, CPU)
    for x, one in zip(parts, workers, strict=True):
        assert one.add(x, (x @ true).astype(np.float32))
        assert whole.add(x, (x @ true).astype(np.float32))
    assert {type(one._pair[0]).__name__ for one in workers if one._pair} == {"FewRows", "NormalEquations"}
    for order in (workers, workers[::-1]):
        found = order[0].merged(order[1]).solve()
        assert found is not None
        assert found.rows == 12 + 12 * 20
        np.testing.assert_allclose(found.weight, true.T, atol=0.02)


@pytest.mark.parametrize("samples", [3, 40])
def test_memory_is_given_back_with_the_last_reference(samples: int) -> None:
    """Of few rows and of many: what refers to itself stays until the collector comes, matrices and all."""
    equations = Equations(product(8), samples, CPU)
    rng = np.random.default_rng(0)
    x, error = rng.normal(size=(samples, 8)), rng.normal(size=(samples, 2))
    assert equations.add(x.astype(np.float32), error.astype(np.float32))
    assert equations._pair is not None
    held = [weakref.ref(equations), *(weakref.ref(part) for part in equations._pair)]
    gc.disable()
    try:
        del equations
        assert [reference() for reference in held] == [None] * 3
    finally:
        gc.enable()


@pytest.mark.parametrize("broken", [0, 1])
def test_errors_that_are_not_finite_in_one_pass_leave_nothing_in_the_other(broken: int) -> None:
    """The first pass may lack rows that the second has, and the other way round."""
    operator, rng = product(), np.random.default_rng(4)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    errors = [(x @ rng.normal(size=(3, 2))).astype(np.float32) for _ in range(2)]
    errors[broken][5], errors[broken][35] = np.inf, np.nan
    again, anew = Equations(operator, 40, CPU), Equations(operator, 40, CPU)
    assert again.add(x, errors[0])
    again.start_again()
    assert again.add(x, errors[1])
    assert anew.add(x, errors[1])
    found, expected = again.solve(), anew.solve()
    assert found is not None
    assert expected is not None
    assert found.rows == expected.rows
    np.testing.assert_allclose(found.weight, expected.weight, rtol=1e-5)

"""Rows of the least-squares problem of one operator against slow loops, and what its solution is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.graph.linear_operators import LinearOperator, linear_operators
from redtest_onnx.metrics.few_rows import FewRows
from redtest_onnx.metrics.ridge import NormalEquations
from redtest_onnx.metrics.symmetric import dense_total
from redtest_onnx.pruning.repair import equations as equations_module
from redtest_onnx.pruning.repair.equations import Equations, inverse_scale, usable_scale
from redtest_onnx.pruning.repair.operator_rows import in_channel_order, operator_rows, spatial

CPU = rt.RunOptions("cpu", 1)
Array = np.ndarray[Any, np.dtype[Any]]


def product(inputs: int = 3, outputs: int = 2, *, bias: bool = False) -> LinearOperator:
    net = Net(x=[None, inputs])
    made = net("MatMul", "x", net.weight(inputs, outputs))
    if bias:
        made = net("Add", made, net.weight(outputs))
    return linear_operators(net.model(made))[0]


def convolution(*, groups: int = 1, stride: int = 2, kernel: tuple[int, int] = (3, 2)) -> LinearOperator:
    net = Net(x=[None, 4, 7, 6])
    weight = net.weight(6, 4 // groups, *kernel)
    made = net("Conv", "x", weight, group=groups, strides=[stride, 1], pads=[1, 0, 1, 0])
    return linear_operators(net.model(made))[0]


def all_rows(
    operator: LinearOperator, x: Array, error: Array, wanted: int, **more: Any
) -> tuple[Array, Array]:
    rows = operator_rows(operator, x, error, wanted, np.random.default_rng(0), **more)
    assert rows is not None
    parts = [rows.gather(block) for block in rows.blocks]
    return tuple(np.concatenate([part[k] for part in parts]) for k in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("groups", [1, 2])
def test_rows_of_a_convolution_are_its_windows(groups: int) -> None:
    rng = np.random.default_rng(1)
    x, error = rng.normal(size=(3, 4, 7, 6)), rng.normal(size=(3, 6, 4, 5))
    found, errors = all_rows(convolution(groups=groups), x, error, 99)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    k = 0
    for n in range(3):
        for i in range(4):
            for j in range(5):
                window = padded[n, :, 2 * i : 2 * i + 3, j : j + 2]  # [C, kh, kw]
                for group in range(groups):
                    own = window[group * 4 // groups : (group + 1) * 4 // groups]
                    np.testing.assert_array_equal(found[k, group], own.transpose(1, 2, 0).reshape(-1))
                    part = error[n, group * 6 // groups : (group + 1) * 6 // groups, i, j]
                    np.testing.assert_array_equal(errors[k, group], part)
                k += 1
    assert (len(found), len(errors)) == (k, k)


def test_of_many_positions_as_many_as_wanted_are_taken_of_each_sample() -> None:
    x = np.arange(3 * 4 * 42, dtype=float).reshape(3, 4, 7, 6)
    error = np.arange(3 * 6 * 20, dtype=float).reshape(3, 6, 4, 5)
    operator = convolution()
    rows = operator_rows(operator, x, error, 7, np.random.default_rng(0))
    assert rows is not None
    assert rows.per_sample == 7
    found, errors = all_rows(operator, x, error, 7)
    assert len(found) == len(errors) == 21
    positions = [int(value) for value in errors[:7, 0, 0]]
    assert positions == sorted(set(positions))  # each once, in order
    np.testing.assert_array_equal(errors[7:14, 0, 0], np.array(positions) + 120)  # the same of all
    whole = operator_rows(operator, x, error, 20, np.random.default_rng(0))
    assert whole is not None
    assert whole.per_sample == 20


def test_rows_of_sequences_are_their_positions() -> None:
    rng = np.random.default_rng(1)
    x, error = rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 5, 2))
    found, errors = all_rows(product(), x, error, 5)
    np.testing.assert_array_equal(found[:, 0], x.reshape(20, 3))
    np.testing.assert_array_equal(errors[:, 0], error.reshape(20, 2))
    some, some_errors = all_rows(product(), x, error, 2)
    assert some.shape == (8, 1, 3)
    places = [int(np.flatnonzero((x.reshape(20, 3) == row[0]).all(axis=1))[0]) for row in some]
    assert places == sorted(set(places))
    np.testing.assert_array_equal(some_errors[:, 0], error.reshape(20, 2)[places])


def test_positions_that_a_mask_leaves_out_give_no_rows() -> None:
    x, error = np.ones((2, 3, 3)), np.arange(12.0).reshape(2, 3, 2)
    counted = np.array([[True, False, True], [False, True, False]])
    _, errors = all_rows(product(), x, error, 9, counted=counted)
    np.testing.assert_array_equal(errors[:, 0, 0], [0, 4, 8])
    rows = operator_rows(product(), x, error, 9, np.random.default_rng(0), counted)
    assert rows is not None
    assert rows.per_sample == 1  # three of two samples


@pytest.mark.parametrize(
    ("x", "error"), [((4, 3), (5, 2)), ((4, 5, 3), (4, 6, 2)), ((4, 5, 3), (20, 2)), ((4, 3), (4, 1, 2))]
)
def test_shapes_that_do_not_fit_give_no_rows(x: tuple[int, ...], error: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    assert operator_rows(product(), np.ones(x), np.ones(error), 9, rng) is None
    assert not Equations(product(), 4, CPU).add(np.ones(x), np.ones(error))


def test_images_need_four_axes_and_lines_three() -> None:
    rng = np.random.default_rng(0)
    for x, error in (((2, 4, 7, 6), (2, 6)), ((2, 4), (2, 6, 4, 5)), ((2, 4, 7, 6, 1), (2, 6, 4, 5))):
        assert operator_rows(convolution(), np.ones(x), np.ones(error), 9, rng) is None
    assert spatial(np.ones((2, 3, 4))).shape == (2, 3, 1, 4)
    assert spatial(np.ones((2, 3, 4, 5))).shape == (2, 3, 4, 5)


@pytest.mark.parametrize(("count", "expected"), [(2047, 1), (2048, 1), (2049, 2), (4096, 2), (4097, 3)])
def test_blocks_hold_two_thousand_rows(count: int, expected: int) -> None:
    rows = operator_rows(product(1, 1), np.ones((count, 1)), np.ones((count, 1)), 1, np.random.default_rng(0))
    assert rows is not None
    assert len(rows.blocks) == expected
    assert [(b.start, b.stop) for b in rows.blocks] == [(2048 * k, 2048 * k + 2048) for k in range(expected)]
    images = operator_rows(
        convolution(), np.ones((900, 4, 7, 6)), np.ones((900, 6, 4, 5)), 20, np.random.default_rng(0)
    )
    assert images is not None
    assert images.blocks[0] == slice(0, 102)  # of twenty rows each
    assert len(images.blocks) == 9


def test_weights_come_back_in_the_order_of_the_file() -> None:
    groups, taps, inputs, outputs = 2, 6, 3, 4
    weight = np.arange(groups * taps * inputs * outputs, dtype=float).reshape(groups, taps * inputs, outputs)
    geometry = convolution().geometry
    assert geometry is not None
    found = in_channel_order(weight, geometry)
    assert found.shape == (groups * outputs, inputs * taps)
    for g in range(groups):
        for m in range(outputs):
            expected = [weight[g, t * inputs + c, m] for c in range(inputs) for t in range(taps)]
            np.testing.assert_array_equal(found[g * outputs + m], expected)
    np.testing.assert_array_equal(in_channel_order(weight[:1], None), weight[0].T)


def test_channels_that_are_switched_off_get_nothing() -> None:
    scale = np.array([2.0, -0.5, 1e-6, -1e-6, 1.1e-6, -1e-3, 0.0])
    np.testing.assert_array_equal(usable_scale(scale), [True, True, False, False, True, True, False])
    expected = [0.5, -2.0, 0.0, 0.0, 1 / 1.1e-6, -1e3, 0.0]
    np.testing.assert_allclose(inverse_scale(scale), expected)


def rows_per_run(density: int, samples: int, positions: int) -> int:
    """Rows that one sample of so many positions gives, at so many rows per unknown."""
    equations = Equations(product(3, 2), samples, CPU, density=density)
    rng = np.random.default_rng(0)
    assert equations.add(rng.normal(size=(4, positions, 3)), rng.normal(size=(4, positions, 2)))
    assert equations._pair is not None
    return equations._pair[0].rows + equations._pair[1].rows


@pytest.mark.parametrize(
    ("density", "samples", "expected"),
    [(4, 4, 4 * 3), (4, 5, 4 * 3), (4, 3, 4 * 4), (1, 99, 4), (100, 4, 4 * 20), (20, 4, 4 * 15)],
)
def test_rows_are_sampled_down_to_a_density(density: int, samples: int, expected: int) -> None:
    """Three unknowns times the density, spread over the samples, no fewer than one each."""
    assert rows_per_run(density, samples, 20) == expected


@pytest.mark.parametrize(("samples", "few"), [(4, True), (5, True), (6, False), (7, False)])
def test_fewer_rows_than_unknowns_are_kept_as_they_are(samples: int, few: bool) -> None:
    equations = Equations(product(6, 2), samples, CPU)
    assert equations.add(np.ones((4, 6)), np.ones((4, 2)))
    assert equations._pair is not None
    assert {type(part) for part in equations._pair} == {FewRows if few else NormalEquations}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("count", [5, 60])
def test_an_error_that_the_input_explains_is_taken_away(bias: bool, count: int) -> None:
    rng = np.random.default_rng(0)
    inputs = 3 if count == 60 else 12
    weight, shift = rng.normal(size=(inputs, 2)), np.array([3.0, -5.0]) * bias
    equations = Equations(product(inputs, 2, bias=bias), count, CPU)
    x = rng.normal(size=(count, inputs))
    assert equations.add(x, x @ weight + shift)
    found = equations.solve(diagnose=True)
    assert found is not None
    assert found.weight.shape == (2, inputs)
    assert found.bias.shape == (2,)
    assert found.unknowns == inputs
    assert found.rows == count
    assert found.diagnosis is not None
    if count == 60:
        np.testing.assert_allclose(found.weight, weight.T, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(found.bias, shift, rtol=1e-3, atol=1e-3)
        assert found.explained == pytest.approx(1, abs=1e-4)
        assert equations.solve().diagnosis is None  # type: ignore[union-attr]


def test_without_rows_there_is_no_correction() -> None:
    assert Equations(product(), 4, CPU).solve() is None


def test_errors_are_forgotten_and_inputs_are_not() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 5, 3)).astype(np.float32)
    first, second = (rng.normal(size=(3, 2)) for _ in range(2))
    again, fresh = (Equations(product(), 80, CPU, density=30, seed=4) for _ in range(2))
    assert again.add(x, x @ first)
    again.start_again()
    assert again.add(x, x @ second)
    assert fresh.add(x, x @ second)
    one, other = again.solve(), fresh.solve()
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(one.weight, other.weight, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(one.weight, second.T, rtol=1e-3, atol=1e-3)
    assert one.rows == other.rows


def test_few_rows_start_again_from_nothing() -> None:
    equations = Equations(product(12, 2), 4, CPU)
    assert equations.add(np.ones((4, 12)), np.ones((4, 2)))
    equations.start_again()
    assert equations.solve() is None


@pytest.mark.parametrize(("threads", "least", "beside"), [(1, 0, 1), (2, 0, 2), (2, 10**8, 1)])
def test_blocks_of_rows_add_up(
    threads: int, least: int, beside: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equations_module, "_WORTH_A_THREAD", least)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9000, 3)).astype(np.float32)
    error = (x @ rng.normal(size=(3, 2)) + rng.normal(size=(9000, 2))).astype(np.float32)
    equations = Equations(product(), 9000, rt.RunOptions("cpu", threads))
    assert equations.add(x, error)
    assert equations._sums._count == beside  # what is small stays on the thread that adds it
    equations.finish()
    assert equations._pair is not None
    for part, rows in zip(equations._pair, (slice(0, 6750), slice(6750, None)), strict=True):
        assert isinstance(part, NormalEquations)
        assert part.shift is not None
        assert part.rows == len(x[rows])
        moved = x[rows].astype(np.float64) - part.shift
        np.testing.assert_allclose(dense_total(part.products, 0), moved.T @ moved, rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(part.xy[0], moved.T @ error[rows], rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(part.yy[0], np.square(error[rows].astype(np.float64)).sum(), rtol=1e-5)


@pytest.mark.parametrize(("dims", "own"), [((3,), True), ((1, 3), True), ((3, 1), False), ((3, 3), False)])
def test_a_constant_per_sample_is_no_bias(dims: tuple[int, ...], own: bool) -> None:
    """Of a fixed batch that is as large as the number of outputs."""
    net = Net(x=[3, 4])
    assert (
        linear_operators(net.model(net("Gemm", "x", net.weight(4, 3), net.store(np.ones(dims)))))[0].bias
        is not None
    ) == own

"""Reductions inside the graph against NumPy in double precision."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from references import whole_gram

import redtest_onnx as rt
from redtest_onnx.graph.probe.constants import PREFIX
from redtest_onnx.graph.probe.reduction import OLDEST_GRAM_OPSET, Form, Pooling, Tap, gram_bounds, gram_width
from redtest_onnx.graph.probe.taps import build_probe, build_shape_probe, expose, find_batch_axis
from redtest_onnx.graph.validity import full_check
from redtest_onnx.metrics.grams import centre_gram
from redtest_onnx.runtime.session import RunOptions, Session

CPU = RunOptions("cpu", 1)
Array = npt.NDArray[np.generic]


def negation(shape: tuple[int, ...], opset: int = 17, dtype: int = TensorProto.FLOAT) -> rt.Model:
    """x -> t = -x -> y, with sizes left open."""
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Neg", ["x"], ["t"]), helper.make_node("Abs", ["t"], ["y"])]
    open_shape = [None] * len(shape)
    graph = helper.make_graph(nodes, "g", [value("x", dtype, open_shape)], [value("y", dtype, open_shape)])
    imports = [helper.make_opsetid("", opset)]
    return rt.Model(helper.make_model(graph, opset_imports=imports, ir_version=9))


def values(shape: tuple[int, ...], offset: float = 0.0) -> npt.NDArray[np.float32]:
    return (np.random.default_rng(0).normal(size=shape) + offset).astype(np.float32)


def reference(tap: Tap, t: Array) -> npt.NDArray[np.float64]:
    """Pooled features [n, p] of a tap in float64."""
    moved = np.moveaxis(t.astype(np.float64), tap.batch_axis, 0)
    rank, windows = moved.ndim, moved.shape[0] != tap.batch
    if tap.pooling == "none" or rank <= 2:
        return moved.reshape(tap.batch, -1)
    if windows or rank == 3 or tap.batch_axis != 0:
        return moved.reshape(tap.batch, -1, moved.shape[-1]).mean(1)
    return moved.mean(tuple(range(2, rank)))


def check(tap: Tap, t: Array, opset: int = 17, rtol: float = 1e-5) -> dict[str, Array]:
    probe = build_probe(negation(tap.shape, opset, tap.dtype), [tap])
    full_check(probe)
    found: dict[str, Array] = Session(probe, CPU, level="basic").run({"x": -t})
    expected = reference(tap, t)
    assert expected.shape == (tap.batch, tap.features)
    if tap.form == "gram":
        first = tap.batch if tap.whole else gram_bounds(tap.batch)[1]
        np.testing.assert_allclose(found[tap.level], np.abs(expected[:first].mean(0)).max(), rtol=rtol)
        centred = expected - expected.mean(0)
        expected = centred @ centred.T
        reduced = centre_gram(whole_gram(found[tap.output], tap.batch))
    else:
        reduced = found[tap.output]
    assert found[tap.output].dtype == np.float32
    np.testing.assert_allclose(reduced, expected, rtol=rtol, atol=rtol * np.abs(expected).max())
    return found


FORMS: tuple[Form, ...] = ("features", "gram")
POOLINGS: tuple[Pooling, ...] = ("mean", "none")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("opset", [9, 13, 17, 18, 20])
@pytest.mark.parametrize(
    "shape", [(6, 5), (6, 4, 5), (6, 3, 4, 5), (6, 3, 2, 4, 5)], ids=lambda s: f"rank{len(s)}"
)
def test_ranks_and_operator_sets(shape: tuple[int, ...], opset: int, pooling: Pooling, form: Form) -> None:
    if form == "gram" and opset < OLDEST_GRAM_OPSET:
        pytest.skip("Grams of such models are made outside of the graph")
    check(Tap("t", shape, TensorProto.FLOAT, 6, 0, pooling, form), values(shape, 1), opset)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((4, 6, 5), 1), ((7, 1, 6, 5), 2), ((7, 6, 3, 5), 1), ((5, 6), 1), ((4, 5, 6), 2)],
    ids=str,
)
def test_samples_in_another_axis(shape: tuple[int, ...], axis: int, pooling: Pooling, form: Form) -> None:
    check(Tap("t", shape, TensorProto.FLOAT, 6, axis, pooling, form), values(shape))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(
    ("shape", "axis"), [((12, 5), 0), ((12, 4, 5), 0), ((12, 3, 4, 5), 0), ((4, 12, 5), 1)], ids=str
)
def test_windows_of_a_sample_lie_in_the_batch_axis(
    shape: tuple[int, ...], axis: int, pooling: Pooling, form: Form
) -> None:
    check(Tap("t", shape, TensorProto.FLOAT, 3, axis, pooling, form), values(shape))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(TensorProto.FLOAT16, np.float16), (TensorProto.DOUBLE, np.float64)],
    ids=["half", "double"],
)
def test_other_types_are_reduced_in_single_precision(dtype: int, kind: type, form: Form) -> None:
    t = values((6, 3, 4, 5)).astype(kind)
    check(Tap("t", t.shape, dtype, 6, 0, "mean", form), t)


@pytest.mark.parametrize(
    ("samples", "width"), [(4, 40), (33, 40), (100, 40), (130, 20000), (300, 4096), (600, 700)]
)
def test_grams_in_blocks_of_rows_and_ranges_of_columns(samples: int, width: int) -> None:
    t = values((samples, width), 1)
    check(Tap("t", t.shape, TensorProto.FLOAT, samples, 0, "none", "gram"), t)


@given(st.integers(1, 3000), st.integers(1, 1 << 20))
def test_ranges_of_columns_are_even_and_not_aliased(samples: int, features: int) -> None:
    width = gram_width(samples, features)
    turns = -(-features // width)
    assert width * turns >= features
    assert width <= max(4096, (1 << 20) // samples) + 16
    assert turns == 1 or width * turns - features <= 17 * turns
    assert (width if turns > 1 else features) % 1024


@pytest.mark.parametrize("opset", [13, 17, 18])
@pytest.mark.parametrize("shape", [(6, 3, 4, 5), (40, 700)], ids=str)
def test_grams_in_one_product(shape: tuple[int, ...], opset: int) -> None:
    tap = Tap("t", shape, TensorProto.FLOAT, shape[0], 0, "none", "gram", whole=True)
    found = check(tap, values(shape, 1000), opset, rtol=1e-4)
    assert found[tap.output].shape == (shape[0], shape[0])


def test_large_means_do_not_drown_a_gram() -> None:
    t = values((8, 3, 6, 6), offset=1000)
    check(Tap("t", t.shape, TensorProto.FLOAT, 8, 0, "none", "gram"), t, rtol=1e-4)


def test_a_constant_layer_shows_by_its_level() -> None:
    t = np.full((8, 3, 6, 6), 1000.1, np.float32)
    tap = Tap("t", t.shape, TensorProto.FLOAT, 8, 0, "none", "gram")
    found = Session(build_probe(negation(t.shape), [tap]), CPU, level="basic").run({"x": -t})
    assert found[tap.level] == pytest.approx(1000.1)
    rounding = 64 * np.finfo(np.float32).eps * float(found[tap.level])
    gram = centre_gram(whole_gram(found[tap.output], 8))
    assert np.diagonal(gram).max() <= tap.features * rounding**2


def test_inputs_and_outputs_of_the_model_can_be_tapped() -> None:
    t = values((4, 3))
    taps = [Tap(name, t.shape, TensorProto.FLOAT, 4, 0, "mean", "features") for name in ("x", "t", "y")]
    model = negation(t.shape)
    before = model.proto.SerializeToString()
    found = Session(build_probe(model, taps), CPU, level="basic").run({"x": t})
    assert list(found) == [PREFIX + name for name in ("x", "t", "y")]
    for name, expected in (("x", t), ("t", -t), ("y", np.abs(t))):
        np.testing.assert_array_equal(found[PREFIX + name], expected)
    assert model.proto.SerializeToString() == before


def test_reductions_stand_right_behind_their_producers() -> None:
    taps = [Tap(name, (4, 3, 2, 2), TensorProto.FLOAT, 4, 0, "mean", "features") for name in ("t", "y")]
    nodes = build_probe(negation((4, 3, 2, 2)), taps).graph.node
    ops = [node.op_type for node in nodes if node.op_type not in ("Constant", "Reshape")]
    assert ops == ["Neg", "GlobalAveragePool", "Abs", "GlobalAveragePool"]


def test_wrong_declared_shapes_do_not_matter() -> None:
    model = negation((4, 3))
    model.graph.value_info.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, [1, 99]))
    check_tap = Tap("t", (4, 3), TensorProto.FLOAT, 4, 0, "mean", "gram")
    probe = build_probe(model, [check_tap])
    full_check(probe)
    assert not probe.graph.value_info


def test_old_operator_sets_are_refused() -> None:
    tap = Tap("t", (4, 3), TensorProto.FLOAT, 4, 0, "mean", "features")
    with pytest.raises(rt.InputError, match="operator set 6 is too old"):
        build_probe(negation((4, 3), opset=6), [tap])


def test_shape_probe_tells_sizes() -> None:
    found = Session(build_shape_probe(negation((0, 0, 0)), ["t"]), CPU, level="basic").run(
        {"x": values((2, 3, 4))}
    )
    assert {name: list(size) for name, size in found.items()} == {f"{PREFIX}t": [2, 3, 4]}


def test_expose_gives_tensors_as_they_are() -> None:
    x = values((2, 3))
    found = Session(expose(negation(x.shape), ["t", "y", "t"]), CPU, level="none").run({"x": x})
    assert list(found) == ["t", "y"]
    np.testing.assert_array_equal(found["t"], -x)


@pytest.mark.parametrize(
    ("small", "large", "expected"),
    [
        ((1, 3, 8), (2, 3, 8), 0),
        ((7, 1, 8), (7, 2, 8), 1),
        ((4, 9, 8), (8, 9, 8), 0),
        ((1, 3), (1, 3), None),
        ((1, 1), (2, 2), None),
        ((1, 3), (3, 3), None),
        ((1, 3), (2, 3, 1), None),
        ((), (), None),
    ],
)
def test_the_axis_that_grows(small: tuple[int, ...], large: tuple[int, ...], expected: int | None) -> None:
    assert find_batch_axis(small, large, 2) == expected


def test_probe_of_a_model_file_is_no_file() -> None:
    assert onnx.ModelProto.FromString(expose(negation((1, 2)), ["t"]).proto.SerializeToString()).graph.output

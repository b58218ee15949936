"""Resizing operator by operator: strides, fans, positions and refusals, on small graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.graph.validity import full_check
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.repair.reinit import refuse_limit, reinitialised
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

CPU = rt.RunOptions("cpu", 1)


def resized(
    model: rt.Model, entry: str, exit_: str = "wide", seed: int = 0
) -> tuple[rt.Model, tuple[str, ...]]:
    """The model without what lies between two tensors, run once and checked."""
    bench = Workbench(model, rt.open_data(None, model, count=8), CPU, seed=seed)
    plan = Plan("test", bench.digest, (Step("gone", entry, exit_, "adapter", None, 0, 0),))
    found, drawn = reinitialised(bench, plan)
    full_check(found)
    shapes = [
        {name: np.shape(value) for name, value in Session(side, CPU).run(bench.sample).items()}
        for side in (model, found)
    ]
    assert shapes[0] == shapes[1]
    return found, drawn


def refused(model: rt.Model, entry: str, why: str, exit_: str = "wide") -> None:
    with pytest.raises(rt.InputError, match="layer 'gone' can't be replaced by resizing") as error:
        resized(model, entry, exit_)
    assert why in error.value.what
    assert "protect='gone'" in (error.value.hint or "")


def node_of(model: rt.Model, output: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.output[0] == output)


def attributes(model: rt.Model, output: str) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node_of(model, output).attribute}


def weight(model: rt.Model, output: str, position: int = 1) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = model.value(model.initializers[node_of(model, output).input[position]])
    return found


def images(shape: tuple[int, ...], entry: int, then: Callable[[Net, str], str], **wide: Any) -> rt.Model:
    """x, a convolution `entry` of its channels, the layer `wide` with 12 channels, and what reads it."""
    net = Net(x=("n", 4, *shape))
    net.conv("x", 4, entry, name="entry")
    net("Conv", "entry", net.weight(12, entry, 3, 3), name="wide", **{"pads": [1, 1, 1, 1], **wide})
    return net.model(then(net, "wide"))


def vectors(entry: int, then: Callable[[Net, str], str], *positions: int) -> rt.Model:
    net = Net(x=("n", *positions, 4))
    net("MatMul", "x", net.weight(4, entry), name="entry")
    net("MatMul", "entry", net.weight(entry, 12), name="wide")
    return net.model(then(net, "wide"))


@pytest.mark.parametrize(
    ("size", "gap", "kernel", "own", "expected"),
    [
        (12, 2, 3, {"pads": [1, 1, 1, 1]}, [2, 2]),
        (12, 3, 3, {"pads": [1, 1, 1, 1]}, [3, 3]),
        (13, 2, 3, {"pads": [1, 1, 1, 1]}, [2, 2]),
        (12, 2, 1, {}, [2, 2]),
        (12, 1, 3, {"pads": [1, 1, 1, 1]}, None),
        (12, 2, 3, {"auto_pad": "SAME_UPPER"}, [2, 2]),
        (13, 2, 3, {"auto_pad": "SAME_LOWER", "strides": [1, 1]}, [2, 2]),
        (16, 2, 3, {"pads": [1, 1, 1, 1], "strides": [2, 2]}, [4, 4]),
        (12, 2, 3, {"pads": [2, 2, 2, 2], "dilations": [2, 2]}, [2, 2]),
        (13, 2, 2, {"pads": [0, 0, 1, 1]}, [2, 2]),
    ],
)
def test_a_convolution_steps_so_that_its_output_keeps_its_sizes(
    size: int, gap: int, kernel: int, own: dict[str, Any], expected: list[int] | None
) -> None:
    def then(net: Net, source: str) -> str:
        return net("Conv", source, net.weight(5, 12, kernel, kernel), net.weight(5), name="next", **own)

    found, drawn = resized(images((size, size), 6, then, strides=[gap, gap]), "entry")
    assert drawn == ("node_next",)
    before = own.get("strides", [1, 1])
    assert attributes(found, "next")["strides"] == (before if expected is None else expected)
    assert {k: v for k, v in attributes(found, "next").items() if k != "strides"} == {
        key: value.encode() if isinstance(value, str) else value
        for key, value in own.items()
        if key != "strides"
    }
    drawn_weight, bias = weight(found, "next"), weight(found, "next", 2)
    assert drawn_weight.shape == (5, 6, kernel, kernel)
    bound = 1 / np.sqrt(6 * kernel * kernel)  # as PyTorch draws
    assert 0.8 * bound < np.abs(drawn_weight).max() <= bound
    assert drawn_weight.min() < 0 < drawn_weight.max()
    assert bias.shape == (5,)
    assert np.abs(bias).max() <= bound


def test_axes_step_each_by_its_own() -> None:
    def then(net: Net, source: str) -> str:
        return net("Conv", source, net.weight(5, 12, 3, 1), name="next", pads=[1, 0, 1, 0])

    found, _ = resized(images((12, 12), 6, then, strides=[2, 3]), "entry")
    assert attributes(found, "next")["strides"] == [2, 3]


def test_a_convolution_that_can_not_step_so_far_is_refused() -> None:
    def then(net: Net, source: str) -> str:
        return net("Conv", source, net.weight(5, 12, 3, 3), name="next")

    refused(images((12, 12), 6, then, pads=[0, 0, 0, 0]), "entry", "can't step from 12x12 to 8x8")


@pytest.mark.parametrize("kind", ["MatMul", "Gemm", "turned"])
def test_a_product_takes_the_features_that_come(kind: str) -> None:
    def then(net: Net, source: str) -> str:
        if kind == "MatMul":
            return net("MatMul", source, net.weight(12, 5), name="next")
        shape = (5, 12) if kind == "turned" else (12, 5)
        return net(
            "Gemm", source, net.weight(*shape), net.weight(5), name="next", transB=int(kind == "turned")
        )

    found, drawn = resized(vectors(6, then), "entry")
    assert drawn == ("node_next",)
    values = weight(found, "next")
    assert values.shape == ((5, 6) if kind == "turned" else (6, 5))
    bound = 1 / np.sqrt(6)
    assert 0.8 * bound < np.abs(values).max() <= bound
    if kind != "MatMul":
        assert np.abs(weight(found, "next", 2)).max() <= bound


def test_values_of_an_own_operator_come_from_the_seed() -> None:
    def then(net: Net, source: str) -> str:
        return net("MatMul", source, net.weight(12, 5), name="next")

    model = vectors(6, then)
    (one, _), (same, _), (other, _) = (resized(model, "entry", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(weight(one, "next"), weight(same, "next"))
    assert np.abs(weight(one, "next") - weight(other, "next")).min() > 0
    expected = np.random.default_rng(0).uniform(-1 / np.sqrt(6), 1 / np.sqrt(6), (6, 5))
    np.testing.assert_allclose(weight(one, "next"), expected, rtol=1e-6)


def test_a_gemm_that_turns_its_input_is_refused() -> None:
    net = Net(x=(8, 4))
    net("MatMul", "x", net.weight(4, 6), name="entry")
    net("MatMul", "entry", net.weight(6, 12), name="wide")
    net("Gemm", "wide", net.weight(8, 5), name="next", transA=1)
    model = net.model("next")
    bench = Workbench(model, rt.open_data({"x": np.ones((8, 4), np.float32)}, model), CPU)
    plan = Plan("test", bench.digest, (Step("gone", "entry", "wide", "adapter", None, 0, 0),))
    with pytest.raises(rt.InputError, match="Gemm node_next reads it"):
        reinitialised(bench, plan)


def test_weights_that_are_computed_can_not_be_drawn() -> None:
    def then(net: Net, source: str) -> str:
        return net("MatMul", source, net("Neg", net.weight(12, 5)), name="next")

    refused(vectors(6, then), "entry", "MatMul node_next reads it, whose weights are not stored")


def test_operators_that_take_one_size_alone_are_refused() -> None:
    def multiplied(net: Net, source: str) -> str:
        return net("MatMul", net("Mul", source, net.weight(12), name="scaled"), net.weight(12, 5))

    refused(vectors(6, multiplied), "entry", "Mul node_scaled reads it")

    def grouped(net: Net, source: str) -> str:
        return net("Conv", source, net.weight(12, 6, 1, 1), name="g", group=2)

    refused(images((6, 6), 6, grouped), "entry", "the grouped convolution node_g reads it")

    def returned(net: Net, source: str) -> str:
        return net("Relu", source, name="y")

    refused(vectors(6, returned), "entry", "it is the model's output 'y'")


@pytest.mark.parametrize(("axis", "fits"), [(-1, True), (2, True), (1, False), (-2, False)])
def test_a_layer_normalisation_of_the_last_axis_starts_anew(axis: int, fits: bool) -> None:
    def then(net: Net, source: str) -> str:
        sizes = (12,) if axis in (-1, 2) else (5, 12)
        statistics = [net.store(np.full(sizes, value)) for value in (3.0, 4.0)]
        normal = net("LayerNormalization", source, *statistics, name="normal", axis=axis)
        return net("MatMul", normal, net.weight(12, 3), name="y")

    model = vectors(6, then, 5)
    if not fits:
        refused(model, "entry", "LayerNormalization node_normal covers several axes")
        return
    found, drawn = resized(model, "entry")
    assert drawn == ("node_normal", "node_y")
    np.testing.assert_array_equal(weight(found, "normal", 1), np.ones(6, np.float32))
    np.testing.assert_array_equal(weight(found, "normal", 2), np.zeros(6, np.float32))


def test_a_normalisation_without_a_shift_gets_none() -> None:
    def then(net: Net, source: str) -> str:
        normal = net("LayerNormalization", source, net.store(np.full(12, 3.0)), name="normal")
        return net("MatMul", normal, net.weight(12, 3), name="y")

    found, _ = resized(vectors(6, then, 5), "entry")
    assert len(node_of(found, "normal").input) == 2
    np.testing.assert_array_equal(weight(found, "normal"), np.ones(6, np.float32))


@pytest.mark.parametrize("position", [0, 1])
def test_a_shortcut_of_vectors_gets_a_projection(position: int) -> None:
    """What still has its shape is summed with what was narrower: the latter is projected."""

    def then(net: Net, source: str) -> str:
        other = net("MatMul", "x", net.weight(4, 12), name="other")
        operands = (source, other) if position == 0 else (other, source)
        return net("MatMul", net("Add", *operands, name="sum"), net.weight(12, 3), name="y")

    found, drawn = resized(vectors(6, then, 5), "entry")
    assert drawn == ("sum/projection",)
    made = node_of(found, "sum/projection")
    assert (made.op_type, made.input[0], made.name) == ("MatMul", "entry", "sum/projection")
    assert node_of(found, "sum").input[position] == "sum/projection"
    assert node_of(found, "sum").input[1 - position] == "other"
    values = weight(found, "sum/projection")
    assert values.shape == (6, 12)
    assert 0.8 / np.sqrt(6) < np.abs(values).max() <= 1 / np.sqrt(6)
    order = [node.output[0] for node in found.graph.node]
    assert order.index("sum/projection") == order.index("sum") - 1


@pytest.mark.parametrize(
    ("size", "stride", "kernel", "steps"), [(12, 1, 1, 1), (12, 2, 2, 2), (12, 3, 3, 3), (13, 2, 1, 2)]
)
def test_a_shortcut_of_images_steps_as_the_layer_did(size: int, stride: int, kernel: int, steps: int) -> None:
    def then(net: Net, source: str) -> str:
        other = net("Conv", "x", net.weight(12, 4, 1, 1), name="other", strides=[stride, stride])
        return net.conv(net("Add", source, other, name="sum"), 12, 3, name="y")

    found, drawn = resized(images((size, size), 6, then, strides=[stride, stride]), "entry")
    assert drawn == ("sum/projection",)
    made = attributes(found, "sum/projection")
    assert made["strides"] == [steps, steps]
    values = weight(found, "sum/projection")
    assert list(values.shape) == [12, 6, *made["kernel_shape"]]
    assert max(made["kernel_shape"]) <= max(kernel, 2)
    bound = 1 / np.sqrt(values[0].size)
    assert 0.8 * bound < np.abs(values).max() <= bound


def test_a_flattened_image_changes_the_number_of_features() -> None:
    def then(net: Net, source: str) -> str:
        sizes = net.store([-1, 12 * 36], np.int64)
        flat = net("Reshape", net("MaxPool", source, kernel_shape=[1, 1]), sizes, name="flat")
        return net("Gemm", flat, net.weight(12 * 36, 3), name="y")

    found, drawn = resized(images((6, 6), 6, then), "entry")
    assert drawn == ("node_y",)
    assert node_of(found, "flat").op_type == "Flatten"
    assert list(node_of(found, "flat").input) == [node_of(found, "flat").input[0]]
    assert weight(found, "y").shape == (6 * 36, 3)


def test_pooling_to_one_position_hides_a_change_of_positions_only() -> None:
    def then(net: Net, source: str) -> str:
        return net.conv(net("GlobalAveragePool", source, name="mean"), 12, 3, name="y")

    found, drawn = resized(images((12, 12), 12, then, strides=[2, 2]), "entry")
    assert drawn == ()
    assert node_of(found, "mean").input[0] == "entry"


def test_only_a_limit_is_refused_and_only_where_weights_are_drawn() -> None:
    refuse_limit("reinit", None)
    refuse_limit("refit", 0.1)
    for limit in (0.0, 0.1):
        with pytest.raises(rt.InputError, match="drawn anew") as error:
            refuse_limit("reinit", limit)
        assert "`remove`" in (error.value.hint or "")
        assert "not with `max_drop`" in (error.value.hint or "")


def test_positions_that_change_are_refused_where_products_or_sums_read_them() -> None:
    def network(then: Callable[[Net, str], str]) -> rt.Model:
        net = Net(x=("n", 6, 4))
        net("MatMul", "x", net.weight(4, 4), name="entry")
        turned = net("Transpose", net("MatMul", "entry", net.weight(4, 5)), perm=[0, 2, 1])
        net("MatMul", turned, net.weight(6, 12), name="wide")  # [n, 5, 12] of [n, 6, 4]
        return net.model(then(net, "wide"))

    def multiplied(net: Net, source: str) -> str:
        return net("MatMul", source, net.weight(12, 3), name="y")

    refused(network(multiplied), "entry", "MatMul node_y can't change positions")

    def added(net: Net, source: str) -> str:
        flat = net("MatMul", net("Transpose", "x", perm=[0, 2, 1]), net.weight(6, 12))
        other = net(
            "Concat", flat, net("Slice", flat, *[net.store([k], np.int64) for k in (0, 1, 1)]), axis=1
        )
        return net("MatMul", net("Add", source, other, name="sum"), net.weight(12, 3), name="y")

    refused(network(added), "entry", "Add node_sum adds more positions to it")


def test_statistics_that_are_computed_can_not_start_anew() -> None:
    def then(net: Net, source: str) -> str:
        scale = net("Neg", net.weight(12))
        normal = net("LayerNormalization", source, scale, net.weight(12), name="normal")
        return net("MatMul", normal, net.weight(12, 3), name="y")

    refused(vectors(6, then, 5), "entry", "LayerNormalization node_normal reads it")


def test_images_that_grow_can_not_be_projected() -> None:
    net = Net(x=("n", 4, 6, 6))
    net.conv("x", 4, 6, name="entry", stride=2)
    net("ConvTranspose", "entry", net.weight(6, 12, 2, 2), strides=[2, 2], name="wide")
    other = net("Conv", "x", net.weight(12, 4, 1, 1), name="other")
    model = net.model(net.conv(net("Add", "wide", other, name="sum"), 12, 3, name="y"))
    refused(model, "entry", "Add node_sum adds more positions to it")

"""Channels that compute nothing leave the graph, and the outputs stay what they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net
from onnx import helper, numpy_helper

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.errors import InternalError
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.validity import full_check
from redtest_onnx.runtime.session import RunOptions, Session
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.weight_sparsity.apply import apply_masks, chosen_weights
from redtest_onnx.weight_sparsity.channels.compact import CompactionResult, check_same, compact

MODELS = Path(__file__).parents[3] / "models"
RNG = np.random.default_rng(0)


def compacted(model: Model) -> CompactionResult:
    data = rt.open_data(None, model)
    result = compact(Workbench(model, data, RunOptions("cpu", 1)))
    full_check(result.model)
    feeds = data.inputs(range(8)) if model.inputs[0].shape[0] != 1 else data.inputs([0])  # type: ignore[index]
    for name, value in Session(model).run(feeds).items():
        np.testing.assert_allclose(Session(result.model).run(feeds)[name], value, rtol=1e-4, atol=1e-5)
    return result


def without(net: Net, name: str, dead: list[int], axis: int = 0) -> None:
    """Set channels of a stored weight to zero."""
    tensor = next(tensor for tensor in net.weights if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    np.moveaxis(values, axis, 0)[dead] = 0
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def shapes(model: Model) -> list[list[int]]:
    return [list(tensor.dims) for tensor in model.graph.initializer]


def test_convolution_batch_norm_relu_convolution() -> None:
    net = Net(x=[1, 3, 8, 8])
    first = net.weight(6, 3, 3, 3)
    hidden = net("Conv", "x", first, pads=[1, 1, 1, 1])
    norm = [net.store(np.ones(6)), net.store(np.full(6, -1.0)), net.store(np.zeros(6)), net.store(np.ones(6))]
    hidden = net("Relu", net("BatchNormalization", hidden, *norm))
    hidden = net("MaxPool", hidden, kernel_shape=[2, 2], strides=[2, 2])
    model_output = net("Conv", hidden, net.weight(4, 6, 3, 3), pads=[1, 1, 1, 1])
    without(net, first, [1, 4])
    result = compacted(net.model(model_output))
    assert [(cut.removed, cut.channels, cut.folded) for cut in result.cuts] == [(2, 6, 0)]
    assert shapes(result.model) == [[4, 3, 3, 3], [4], [4], [4], [4], [4, 4, 3, 3]]


@pytest.mark.parametrize("padded", [True, False])
def test_constants_that_are_not_zero_are_folded_unless_padding_lies_around_them(padded: bool) -> None:
    net = Net(x=[1, 3, 8, 8])
    first = net.weight(6, 3, 3, 3)
    hidden = net("Relu", net("Conv", "x", first, net.store(np.full(6, 0.7))))
    pads = [1, 1, 1, 1] if padded else [0, 0, 0, 0]
    out = net("Conv", hidden, net.weight(4, 6, 3, 3), pads=pads)
    without(net, first, [0, 5])
    result = compacted(net.model(out))
    if padded:
        assert not result.cuts
    else:
        assert [(cut.removed, cut.folded) for cut in result.cuts] == [(2, 2)]
        assert len(result.model.graph.node[2].input) == 3


def test_constants_are_folded_into_the_normalisation_behind() -> None:
    net = Net(x=[1, 3, 8, 8])
    first = net.weight(6, 3, 1, 1)
    hidden = net("Conv", "x", first, net.store(np.full(6, -0.4)))
    hidden = net("Conv", net("LeakyRelu", hidden, alpha=0.1), net.weight(4, 6, 3, 3))
    gamma, beta, mean, variance = RNG.normal(size=(4, 4))
    norm = [net.store(gamma), net.store(beta), net.store(mean), net.store(variance**2)]
    without(net, first, [2])
    result = compacted(net.model(net("BatchNormalization", hidden, *norm)))
    assert [(cut.removed, cut.folded) for cut in result.cuts] == [(1, 1)]


def test_channels_without_readers_are_removed() -> None:
    net = Net(x=[1, 16])
    hidden = net("Relu", net("Gemm", "x", net.weight(16, 8), net.weight(8)))
    second = net.weight(4, 8)
    out = net("Gemm", hidden, second, transB=1)
    without(net, second, [0, 3, 7], axis=1)
    result = compacted(net.model(out))
    assert [(cut.removed, cut.folded) for cut in result.cuts] == [(3, 0)]
    assert shapes(result.model) == [[16, 5], [5], [4, 5]]


def test_what_goes_sets_others_free() -> None:
    """Zero columns of the third layer free rows of the second, whose columns free the first."""
    net = Net(x=[1, 16])
    hidden = net("Relu", net("MatMul", "x", net.weight(16, 4)))
    second = np.diag([1.0, 2.0, 3.0, 4.0])
    hidden = net("Relu", net("MatMul", hidden, net.store(second)))
    third = net.weight(4, 3)
    out = net("MatMul", hidden, third)
    without(net, third, [1, 2])
    result = compacted(net.model(out))
    assert [list(tensor.dims) for tensor in result.model.graph.initializer] == [[16, 2], [2, 2], [2, 3]]


def test_flattened_images_lose_blocks_of_columns() -> None:
    net = Net(x=[1, 2, 4, 4])
    first = net.weight(5, 2, 1, 1)
    hidden = net("Conv", "x", first)
    flat = net("Reshape", hidden, net.store([1, 80], np.int64))
    out = net("Gemm", flat, net.weight(80, 3))
    without(net, first, [1])
    result = compacted(net.model(out))
    assert shapes(result.model) == [[4, 2, 1, 1], [2], [64, 3]]


def test_depthwise_convolutions_lose_their_group() -> None:
    net = Net(x=[1, 3, 8, 8])
    first, depthwise = net.weight(6, 3, 1, 1), net.weight(6, 1, 3, 3)
    hidden = net("Clip", net("Conv", "x", first), net.store(0.0), net.store(6.0))
    hidden = net("Relu", net("Conv", hidden, depthwise, group=6, pads=[1, 1, 1, 1]))
    out = net("Conv", net("GlobalAveragePool", hidden), net.weight(4, 6, 1, 1))
    without(net, first, [0])
    without(net, depthwise, [3])
    result = compacted(net.model(out))
    assert [cut.removed for cut in result.cuts] == [2]
    assert shapes(result.model)[1] == [4, 1, 3, 3]


def test_gelu_written_out_is_followed() -> None:
    net = Net(x=[1, 5, 8])
    first = net.weight(8, 12)
    hidden = net("Add", net("MatMul", "x", first), net.store(np.full(12, 0.3)))
    erf = net("Add", net("Erf", net("Div", hidden, net.store(2**0.5))), net.store(1.0))
    hidden = net("Mul", net("Mul", hidden, erf), net.store(0.5))
    out = net("Add", net("MatMul", hidden, net.weight(12, 8)), net.weight(8))
    without(net, first, [1, 2, 9], axis=1)
    result = compacted(net.model(out))
    assert [(cut.removed, cut.folded) for cut in result.cuts] == [(3, 3)]


def test_products_without_a_bias_keep_constants() -> None:
    net = Net(x=[1, 8])
    first = net.weight(8, 12)
    hidden = net("Add", net("MatMul", "x", first), net.store(np.full(12, 0.3)))
    out = net("MatMul", hidden, net.weight(12, 8))
    without(net, first, [1], axis=1)
    assert not compacted(net.model(out)).cuts


def test_sums_with_a_shortcut_and_outputs_keep_their_channels() -> None:
    net = Net(x=[1, 4, 8, 8])
    first = net.weight(4, 4, 3, 3)
    branch = net("Conv", "x", first, pads=[1, 1, 1, 1])
    out = net("Conv", net("Add", branch, "x"), net.weight(4, 4, 1, 1))
    without(net, first, [0])
    assert not compacted(net.model(out)).cuts
    assert not compacted(net.model(out, branch)).cuts


def test_flattened_sequences_keep_their_channels() -> None:
    net = Net(x=[1, 3, 8])
    first = net.weight(8, 6)
    flat = net("Flatten", net("MatMul", "x", first))
    without(net, first, [1, 2], axis=1)
    assert not compacted(net.model(net("MatMul", flat, net.weight(18, 4)))).cuts


def test_one_channel_always_stays() -> None:
    net = Net(x=[1, 8])
    first = net.weight(8, 5)
    out = net("MatMul", net("MatMul", "x", first), net.weight(5, 3))
    without(net, first, [0, 1, 2, 3, 4], axis=1)
    assert shapes(compacted(net.model(out)).model) == [[8, 1], [1, 3]]


def test_shared_weights_stay_whole_for_others() -> None:
    net = Net(x=[1, 6])
    shared = net.weight(6, 6)
    without(net, shared, [2], axis=1)
    hidden = net("Relu", net("MatMul", "x", shared))
    out = net("MatMul", hidden, net.weight(6, 3))
    other = net("MatMul", "x", shared)
    result = compacted(net.model(out, other))
    assert sorted(shapes(result.model)) == [[5, 3], [6, 5], [6, 6]]


@pytest.mark.parametrize("name", ["vgg", "resnet", "vit"])
def test_the_embedded_models_lose_neurons_exactly(name: str) -> None:
    model = rt.load(MODELS / f"{name}_digits.onnx")
    data = rt.open_data(MODELS / "digits.npz", model)
    weights = chosen_weights(model)
    masks = [np.ones((weight.layout.count, weight.inputs), bool) for weight in weights]
    for mask in masks[1:-1]:
        mask[::3] = False
    zeroed = apply_masks(model, weights, masks)
    result = compact(Workbench(zeroed, data, RunOptions("cpu", 1)))
    assert sum(cut.removed for cut in result.cuts) > 20
    full_check(result.model)
    feeds = data.inputs(range(32))
    for key, value in Session(zeroed).run(feeds).items():
        np.testing.assert_allclose(Session(result.model).run(feeds)[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("ir_version", [3, 8])
def test_what_is_dropped_needs_not_be_fed(ir_version: int) -> None:
    """Before IR version 4 every initializer is listed among the inputs."""
    net = Net(x=[1, 3, 8, 8])
    first = net.weight(6, 3, 3, 3)
    unread = net.weight(3)
    hidden = net("Relu", net("Conv", "x", first))
    without(net, first, [1, 4])
    proto = net.model(net("Conv", hidden, net.weight(4, 6, 3, 3))).proto
    proto.ir_version = ir_version
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, 1, tensor.dims))
    result = compacted(rt.Model(proto))
    assert result.cuts
    assert unread not in {value.name for value in result.model.graph.input}


def saturated(dead: list[int]) -> Model:
    """Scores of about -14: their Sigmoid is 1.6e-6, known to some 1e-7."""
    net = Net(x=[1, 3, 8, 8])
    first = net.weight(64, 3, 3, 3)
    hidden = net("Relu", net("Conv", "x", first))
    scores = net("Mul", net("Conv", hidden, net.weight(1, 64, 3, 3)), net.store([0.01]))
    without(net, first, dead)
    return net.model(net("Sigmoid", net("Add", scores, net.store([-14.0]))))


def test_small_outputs_of_a_saturated_function() -> None:
    """Sigmoid gives 1e-6 to no more than some roundings of 1."""
    assert compacted(saturated(list(range(0, 64, 3)))).cuts


def test_a_model_that_overflows_loses_its_channels() -> None:
    net = Net(x=[1, 3, 8, 8])
    first = net.weight(8, 3, 3, 3)
    hidden = net("Relu", net("Conv", "x", first))
    huge = net("Mul", net("Conv", hidden, net.weight(2, 8, 3, 3)), net.store(np.full((1, 2, 1, 1), 1e38)))
    without(net, first, [1, 4])
    model = net.model(net("Mul", huge, net.store([1e3])))
    bench = Workbench(model, rt.open_data(None, model), RunOptions("cpu", 1))
    assert not all(np.isfinite(value).all() for value in bench.session().run(bench.sample).values())
    assert compact(bench).cuts


@pytest.mark.parametrize("change", [0.01, np.nan])
def test_a_wrong_compaction_is_caught(change: float) -> None:
    """A weight that is 1 % off stands for channels that were taken out though they computed something."""
    net = Net(x=[1, 3, 8, 8])
    first = net.weight(6, 3, 3, 3)
    model = net.model(net("Conv", net("Relu", net("Conv", "x", first)), net.weight(4, 6, 3, 3)))
    bench = Workbench(model, rt.open_data(None, model), RunOptions("cpu", 1))
    check_same(bench, model)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    values = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    values[0] *= 1 + change
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, first))
    with pytest.raises(InternalError, match="differs by"):
        check_same(bench, model.edited(proto))


def test_a_model_that_does_not_run_is_refused_as_such(tmp_path: Path) -> None:
    net = Net(x=["N", 3])
    hidden = net("Relu", net("MatMul", "x", net.store(np.diag([1.0, 2.0, 0.0]))))
    net("MatMul", hidden, net.weight(4, 2), name="y")
    path = tmp_path / "m.onnx"
    path.write_bytes(net.model("y").proto.SerializeToString())
    assert run(["sparsity", str(path), "--method", "one-shot", "-o", str(tmp_path / "o.onnx"), "-q"]) == 2
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize("kind", ["Gemm", "Add"])
def test_what_is_folded_is_added_to_a_bias_that_is_handed_on(kind: str) -> None:
    """The bias itself loses the channels that the next operator doesn't need."""
    net = Net(x=["n", 4])
    first, second, shared = net.weight(6, 4), net.weight(6, 6), net.store(np.full(6, 0.7))
    hidden = net("Relu", net("Gemm", "x", first, shared, transB=1))
    bias = net("Identity", shared)
    if kind == "Gemm":
        hidden = net("Gemm", hidden, second, bias, transB=1)
    else:
        hidden = net("Add", net("MatMul", hidden, second), bias)
    out = net("MatMul", net("Relu", hidden), net.weight(6, 3))
    without(net, first, [0, 5])
    without(net, second, [2], axis=0 if kind == "Gemm" else 1)
    result = compacted(net.model(out))
    assert sum(cut.folded for cut in result.cuts) > 1

"""What fails only on synthetic inputs is no finding against the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from audited_models import CPU, found
from nets import Net

import redtest_onnx as rt
from redtest_onnx.auditing.profile import Profile
from redtest_onnx.auditing.run import audit
from redtest_onnx.data.synthetic import guessed_values
from redtest_onnx.errors import InputError
from redtest_onnx.runtime.workbench import Workbench

INTEGERS = onnx.TensorProto.INT64


def rules_of(model: rt.Model, data: dict[str, np.ndarray] | None = None) -> set[str]:
    bench = Workbench(model, rt.open_data(data, model), CPU)
    return found(audit(bench, Profile(name="t"), timed=False))


def graph_of_means(*, guarded: bool = False) -> rt.Model:
    """A graph network: the mean over the edges that come in, 0 / 0 where none does unless guarded."""
    net = Net(opset=18, x=["N", 4])
    edges = net.add_input("edge_index", INTEGERS, [2, "E"])
    source, target = (net("Gather", edges, net.store(k, np.int64), axis=0) for k in (0, 1))
    h = net("MatMul", "x", net.weight(4, 4))
    message = net("Gather", h, source, axis=0)
    none = net("Mul", h, net.store(0.0))
    rows = net("Expand", net("Unsqueeze", target, net.store([1], np.int64)), net("Shape", message))
    ones = net("Add", net("Mul", message, net.store(0.0)), net.store(1.0))
    total, count = (
        net("ScatterElements", none, rows, what, axis=0, reduction="add") for what in (message, ones)
    )
    if guarded:
        count = net("Max", count, net.store(1.0))
    return net.model(net("MatMul", net("Div", total, count), net.weight(4, 3)))


def test_a_graph_that_was_made_up_blames_no_model() -> None:
    model = graph_of_means()
    assert guessed_values(model) == ("edge_index",)
    with pytest.raises(InputError, match="edge_index are a guess"):
        rules_of(model)
    assert "RT060" not in rules_of(graph_of_means(guarded=True))


def test_a_graph_that_was_given_tells() -> None:
    ring = np.stack([np.arange(6), np.roll(np.arange(6), 1)])[None]
    features = np.random.default_rng(0).normal(size=(1, 6, 4)).astype(np.float32)
    model = graph_of_means().with_sizes({"x": (6, 4), "edge_index": (2, 6)})
    feeds = {"x": np.repeat(features, 8, 0), "edge_index": np.repeat(ring, 8, 0)}
    assert "RT060" not in rules_of(model, feeds)
    star = np.stack([np.arange(6), np.zeros(6, np.int64)])[None]
    assert "RT060" in rules_of(model, feeds | {"edge_index": np.repeat(star, 8, 0)})


def small_variance(side: int) -> rt.Model:
    """A norm without epsilon over what strides leave of an image: a single value of images up to a size."""
    net = Net(opset=18, x=["N", 1, "H", "W"])
    h = net("AveragePool", "x", kernel_shape=[side, side], strides=[side, side])
    centred = net("Sub", h, net("ReduceMean", h, net.store([2, 3], np.int64)))
    variance = net("ReduceMean", net("Mul", centred, centred), net.store([2, 3], np.int64))
    ratio = net("Div", net("Add", centred, net.store(1.0)), net("Sqrt", variance))
    return net.model(net("Conv", ratio, net.weight(2, 1, 1, 1)))


def test_an_image_that_is_too_small_blames_no_model() -> None:
    """Noise of 64 x 64 leaves one value; of zeros every size leaves a variance of 0, which is a finding."""
    result = audit(
        Workbench(model := small_variance(64), rt.open_data(None, model), CPU), Profile(name="t"), timed=False
    )
    said = [finding.message for finding in result.findings if finding.rule == "RT060"]
    assert len(said) == 1
    assert said[0].startswith("on zero inputs")


def test_ids_of_a_stored_table_are_no_guess() -> None:
    net = Net(opset=18)
    ids = net.add_input("ids", INTEGERS, ["N", 5])
    model = net.model(net("Log", net("Gather", net.weight(9, 4), ids)))
    assert guessed_values(model) == ()
    assert "RT060" in rules_of(model)


@pytest.mark.parametrize(
    ("name", "shape", "guess"),
    [("codes", ["N", 5], True), ("attention_mask", ["N", 5], False), ("pixels", ["N", 3, 8, 8], False)],
)
def test_integers_of_which_nothing_tells(
    name: str, shape: list[str | int], guess: bool, tmp_path: Path
) -> None:
    net = Net(opset=18)
    x = net("Cast", net.add_input(name, INTEGERS, shape), to=onnx.TensorProto.FLOAT)
    model = net.model(net("MatMul", x, net.weight(int(shape[-1]), 4)))
    assert (guessed_values(model) == (name,)) is guess


@pytest.mark.parametrize("lost", [-np.inf, np.inf, np.nan])
def test_stored_masks_of_minus_infinity_are_no_broken_weights(lost: float) -> None:
    net = Net(opset=18, x=["N", 4, 4])
    causal = np.where(np.triu(np.ones((4, 4)), 1) > 0, lost, 0).astype(np.float32)
    masked = net("Softmax", net("Add", "x", net.store(causal)), axis=-1)
    table = net("Gather", net.store(np.r_[np.full((1, 4), lost), np.ones((3, 4))]), net.store([1], np.int64))
    model = net.model(net("MatMul", net("Add", masked, table), net.weight(4, 2)))
    assert ("RT043" in rules_of(model)) is not bool(np.isneginf(lost))
    weights = np.where(np.eye(4) > 0, lost, 1).astype(np.float32)
    other = Net(opset=18, x=["N", 4])
    assert "RT043" in rules_of(other.model(other("MatMul", "x", other.store(weights))))


@pytest.mark.parametrize("given", [True, False])
def test_a_single_number_is_an_input_like_others(given: bool) -> None:
    """Such as a threshold or the strength of noise."""
    net = Net(opset=18, x=["N", 4], strength=[])
    model = net.model(net("MatMul", net("Mul", "x", "strength"), net.weight(4, 2)))
    rng = np.random.default_rng(0)
    feeds = {"x": rng.normal(size=(8, 4)).astype(np.float32), "strength": np.array(0.5, np.float32)}
    assert "RT060" not in (rules_of(model, feeds) if given else rules_of(model))

"""Moments, prices and savings of inner widths, against what models do that are run and counted."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import redtest_onnx as rt
from redtest_onnx.graph.channel_edits import keep_channels
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.inner_widths import inner_widths
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.graph.weights import change_operands
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.width import moments
from redtest_onnx.pruning.width.fill import WidthFill
from redtest_onnx.pruning.width.moments import width_readers
from redtest_onnx.pruning.width.prices import width_prices
from redtest_onnx.pruning.width.savings import WidthSavings
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench
from tests.nets import Net

CPU = rt.RunOptions(device="cpu", threads=1)


def chain(bias: bool = True) -> Workbench:
    """Two convolutions and a product, whose widths share an operator; some channels are nearly copies."""
    net = Net(image=("n", 3, 6, 6))
    rng = np.random.default_rng(5)
    weight = rng.normal(size=(8, 3, 3, 3))
    weight[4:] = weight[:4] + 0.05 * rng.normal(size=(4, 3, 3, 3))
    x = net("Relu", net("Conv", "image", net.store(weight), net.weight(8), pads=[1, 1, 1, 1]))
    second = [net.weight(6, 8, 3, 3), *([net.weight(6)] if bias else [])]
    x = net("Relu", net("Conv", x, *second, pads=[1, 1, 1, 1]))
    x = net("Flatten", net("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    out = net("Gemm", x, net.store(rng.normal(size=(54, 4))), net.weight(4), name="out")
    data = {"image": rng.normal(size=(48, 3, 6, 6)).astype(np.float32)}
    model = net.model(out)
    return Workbench(model, rt.open_data(data, model), CPU)


@pytest.mark.parametrize("bias", [True, False])
def test_moments_are_those_of_what_is_read(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "_ROWS", 10**6)  # all positions
    bench = chain(bias)
    first, second = inner_widths(bench.model).found
    indices = np.arange(48)
    found = {width.name: own for width, own in width_readers(bench, [first, second], indices)}
    read = [first.consumers[0].input, second.consumers[0].input, first.consumers[0].target]
    values = Session(expose(bench.model, read), CPU).run(bench.data.inputs(indices))
    image, flat = values[read[0]].astype(np.float64), values[read[1]].astype(np.float64)
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows = np.stack(
        [padded[:, :, i : i + 3, j : j + 3].reshape(48, -1) for i in range(6) for j in range(6)], 1
    ).reshape(48 * 36, -1)
    (reader,) = found[first.name]
    expected = np.cov(rows.T, bias=True) if bias else rows.T @ rows / len(rows)
    np.testing.assert_allclose(reader.linear.moments, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(reader.mean, rows.mean(axis=0), rtol=1e-5, atol=1e-6)
    target = np.moveaxis(values[read[2]], 1, -1).reshape(-1, 6).astype(np.float64)
    assert reader.linear.energy == pytest.approx(target.var(axis=0).sum(), rel=1e-5)
    (reader,) = found[second.name]
    np.testing.assert_allclose(reader.linear.moments, np.cov(flat.T, bias=True), rtol=1e-5, atol=1e-5)


def test_places_of_many_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "LARGEST", 20)
    bench = chain()
    first, second = inner_widths(bench.model).found
    found = {width.name: own for width, own in width_readers(bench, [first, second], np.arange(48))}
    for width, places, outputs in ((first, 9, 6), (second, 9, 4)):
        (reader,) = found[width.name]
        assert reader.linear.moments.shape == (width.channels, width.channels)
        assert reader.linear.weight.shape == (width.channels, places * outputs)
        weight, bias = reader.correction(np.arange(width.channels), width.channels)
        assert weight.shape == (outputs, width.channels * places)
        assert np.abs(weight).max() < 0.05
        assert bias.shape == (outputs,)


def test_few_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = chain()
    widths = inner_widths(bench.model).found
    whole = list(width_readers(bench, widths, np.arange(48)))
    monkeypatch.setattr(moments, "_RUN_BYTES", 1)
    parts = list(width_readers(bench, widths, np.arange(48)))
    assert [width for width, _ in whole] == [width for width, _ in parts] == list(widths)
    for (_, mine), (_, theirs) in zip(whole, parts, strict=True):
        np.testing.assert_allclose(mine[0].linear.moments, theirs[0].linear.moments, rtol=0.2, atol=0.2)
        np.testing.assert_array_equal(mine[0].linear.weight, theirs[0].linear.weight)


@pytest.mark.parametrize("largest", [moments.LARGEST, 20])
def test_a_correction_does_what_its_price_says(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights with it, and nothing read of the channels that go, leave the error of the elimination."""
    monkeypatch.setattr(moments, "LARGEST", largest)
    monkeypatch.setattr(moments, "_ROWS", 10**6)
    bench = chain()
    first = inner_widths(bench.model).found[0]
    ((_, readers),) = width_readers(bench, [first], np.arange(48))
    prices = width_prices(bench, [first])[0]
    kept = prices.elimination.kept(4)
    weight, bias = readers[0].correction(kept, 8)
    node = first.consumers[0].node
    names = bench.model.graph.node[node].input
    stored = [bench.model.value(bench.model.initializers[name]) for name in names[1:]]
    changed = stored[0] + weight.reshape(stored[0].shape)
    assert np.abs(np.delete(changed, kept, axis=1)).max() < 1e-5
    model = change_operands(
        bench.model, {(node, names[1]): changed, (node, names[2]): (stored[1] + bias).astype(np.float32)}
    )
    target = first.consumers[0].target
    feeds = bench.data.inputs(np.arange(48))
    before, after = (Session(expose(m, [target]), CPU).run(feeds)[target] for m in (bench.model, model))
    error = np.square(after - before).mean(axis=(0, 2, 3)).sum() / before.var(axis=(0, 2, 3)).sum()
    if largest > 20:
        # That of the elimination holds the penalty, too.
        assert 0.7 * prices.elimination.errors[4] < error <= prices.elimination.errors[4]
    assert error < 0.05
    assert prices.price(0) == 0
    assert 0 < prices.price(4) < prices.price(6)
    assert prices.amounts == [0, 1, 2, 3, 4, 5, 6, 7]


def test_savings_are_those_of_the_narrower_model() -> None:
    bench = chain()
    widths = inner_widths(bench.model).found
    savings = WidthSavings(bench, widths)
    removed = {widths[0].name: 3, widths[1].name: 2}
    kept = {widths[0].name: np.arange(5), widths[1].name: np.arange(4)}
    smaller = bench.successor(keep_channels(bench.model, kept)).cost
    assert smaller.macs is not None
    assert bench.cost.macs is not None
    assert savings.saved("params", removed) == bench.cost.parameters - smaller.parameters
    assert savings.saved("macs", removed) == bench.cost.macs - smaller.macs
    alone = {widths[0].name: 3}
    gain = savings.gain("macs", alone, widths[1].name, 2)
    assert gain == pytest.approx(savings.saved("macs", removed) - savings.saved("macs", alone))


@pytest.mark.parametrize("targets", [(("macs", 0.6),), (("params", 0.5), ("macs", 0.7)), (("params", 1.0),)])
def test_targets_are_met_and_nothing_goes_needlessly(targets: tuple[tuple[str, float], ...]) -> None:
    bench = chain()
    prices = width_prices(bench, inner_widths(bench.model).found)
    fill = WidthFill(bench, prices, targets)  # type: ignore[arg-type]
    plan = Plan("test", bench.digest, ())
    found = fill.run(plan)
    assert found is not None
    assert bool(found) == (targets[0][1] < 1)
    removed = {narrowing.width: narrowing.removed for narrowing in found}
    assert not fill.missing(plan, removed)
    for name, count in removed.items():
        assert fill.missing(plan, {**removed, name: count - 1})


def test_too_much_is_refused() -> None:
    bench = chain()
    fill = WidthFill(bench, width_prices(bench, inner_widths(bench.model).found), (("params", 0.01),))
    assert fill.run(Plan("test", bench.digest, ())) is None


def test_names_lead_to_operators() -> None:
    bench = chain()
    index = index_of(bench.model)
    for width in inner_widths(bench.model).found:
        assert index.nodes[width.producers[0].node].name == width.name


def _dense(end: str) -> Workbench:
    """A hidden layer whose scores a list hands out, or whose logarithm is no number anywhere."""
    net = Net(x=["n", 6])
    hidden = net("Relu", net("Gemm", "x", net.weight(6, 12), net.weight(12)))
    scores = net("Gemm", hidden, net.weight(12, 4), net.weight(4))
    if end == "list":
        out = net("SequenceConstruct", scores, net("Relu", scores), name="out")
        proto = net.model(out).proto
        value = onnx.helper.make_tensor_sequence_value_info("out", onnx.TensorProto.FLOAT, None)
        proto.graph.output[0].CopyFrom(value)
        model = rt.Model(proto)
    else:
        nothing = net("Log", net("Sub", net("Neg", net("Abs", scores)), net.store(1.0)))
        second = net("Relu", net("Gemm", nothing, net.weight(4, 12), net.weight(12)))
        model = net.model(net("Gemm", second, net.weight(12, 4), net.weight(4), name="out"))
    data = {"x": np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)}
    return Workbench(model, rt.open_data(data, model), CPU)


def test_lists_are_priced_by_what_is_in_them() -> None:
    bench = _dense("list")
    (price,) = width_prices(bench, inner_widths(bench.model).found)
    assert 0 < price.effect <= 1


def test_values_that_are_no_numbers_have_no_price() -> None:
    bench = _dense("no numbers")
    found = inner_widths(bench.model).found
    assert len(width_prices(bench, found)) < len(found)

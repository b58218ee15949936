"""Positions that a mask leaves out count nowhere: the length of the padding changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import redtest_onnx as rt
from redtest_onnx.data.arrays import open_arrays
from redtest_onnx.data.dataset import WithMask
from redtest_onnx.data.text import Encoded, Texts
from redtest_onnx.graph.masks import Mask, find_mask
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.metrics.cka import cka
from redtest_onnx.metrics.exact import full_hsic
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.criteria.base import CriterionContext, rank
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.prune import PruneSettings, rewrite
from redtest_onnx.runtime.session import RunOptions, Session
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings, analyze
from tests.decoders import WORDS, encoder, plain_decoder
from tests.nets import Net

CPU = RunOptions("cpu", 1)
SAMPLES = 48


def padded(length: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    ids = np.zeros((SAMPLES, length), np.int64)
    valid = np.zeros_like(ids)
    for row in range(SAMPLES):
        size = int(rng.integers(4, 20))
        ids[row, :size], valid[row, :size] = rng.integers(1, WORDS, size), 1
    return {"ids": ids, "valid": valid}


def bench_of(model: Model, length: int) -> Workbench:
    return Workbench(model, open_arrays(padded(length), model), CPU)


def test_a_mask_is_found_by_its_name_and_by_its_use() -> None:
    assert find_mask(plain_decoder(1)) == Mask("attention_mask")
    assert find_mask(encoder(1)) == Mask("valid")
    assert find_mask(encoder(1), "ids", 0) == Mask("ids", 0)
    assert find_mask(encoder(1), "valid", 1) == Mask("valid")  # the pad id is none of a mask's values
    net = Net(x=["n", 4])
    assert find_mask(net.model(net("Relu", "x"))) is None
    with pytest.raises(rt.InputError, match="no input 'nothing'"):
        find_mask(encoder(1), "nothing")


@pytest.mark.parametrize("pooling", ["mean", "none", "cls", "token"])
def test_similarity_does_not_depend_on_the_padding(pooling: str) -> None:
    settings = AnalysisSettings(samples=SAMPLES, batches=1, pooling=pooling)  # type: ignore[arg-type]
    short, long = (analyze(bench_of(encoder(), length), settings) for length in (20, 70))
    np.testing.assert_allclose(short.similarity, long.similarity, atol=1e-6)
    assert short.redundancy.value == pytest.approx(long.redundancy.value, abs=1e-4)


def test_pooling_is_the_mean_of_what_counts() -> None:
    bench = bench_of(encoder(), 40)
    found = analyze(bench, AnalysisSettings(samples=SAMPLES, batches=1))
    names = [layer.tensor for layer in found.layers]
    values = Session(expose(bench.opened.model, names), CPU).run(padded(40))
    valid = padded(40)["valid"].astype(np.float64)[:, :, None]
    order = np.concatenate([np.arange(SAMPLES)])
    pooled = [((values[n] * valid).sum(1) / valid.sum(1))[order].astype(np.float32) for n in names]
    np.testing.assert_allclose(found.similarity, cka(full_hsic(pooled)), atol=1e-5)


def test_repaired_weights_do_not_depend_on_the_padding() -> None:
    results = []
    for length in (20, 70):
        bench = bench_of(encoder(), length)
        layer = next(layer for layer in bench.layers("block") if layer.removable)
        plan = Plan("test", bench.digest, (Step.of(layer),))
        pruned, repaired = rewrite(bench, plan, PruneSettings(repair="refit"))
        assert repaired.method == "refit"
        results.append({t.name: pruned.model.value(t) for t in pruned.model.graph.initializer})
    assert results[0].keys() == results[1].keys()
    changed = 0
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, rtol=1e-3, atol=1e-4, err_msg=name)
        changed += not np.array_equal(value, encoder().value(encoder().initializers[name]))
    assert changed > 2


def without_a_block(bench: Workbench) -> Model:
    layer = next(layer for layer in bench.layers("block") if layer.removable)
    return apply_plan(bench.opened, Plan("test", bench.digest, (Step.of(layer),)))


def test_agreement_does_not_depend_on_the_padding() -> None:
    found = []
    for length in (20, 70):
        bench = bench_of(encoder(), length)
        found.append(bench.evaluator().evaluate(without_a_block(bench)).agreement)
    assert found[0].value == pytest.approx(found[1].value, abs=1e-6)
    assert found[0].relative_l2 == pytest.approx(found[1].relative_l2, rel=1e-5)
    assert found[0].cosine == pytest.approx(found[1].cosine, rel=1e-5)


def test_padding_by_its_id_counts_as_little_as_by_a_mask() -> None:
    model = encoder(1)
    arrays = padded(30)
    found = []
    for name in ("ids", "valid"):
        bench = Workbench(model, WithMask(open_arrays(arrays, model), name), CPU)
        bench.__dict__["mask"] = Mask(name, 0 if name == "ids" else None)
        (tensor,) = bench.outputs[0].tensors
        assert tensor.mask == name
        found.append(bench.evaluator().evaluate(without_a_block(bench)).agreement.value)
    assert found[0] == pytest.approx(found[1], abs=1e-9)


@pytest.mark.parametrize("criterion", ["block-influence", "angular", "output-effect", "recoverable"])
def test_criteria_do_not_depend_on_the_padding(criterion: str) -> None:
    orders = []
    for length in (20, 70):
        bench = bench_of(encoder(), length)
        analysis = analyze(bench, AnalysisSettings(samples=SAMPLES, batches=1, granularity="block"))
        ranked = rank(criterion, CriterionContext(bench.opened, analysis))
        orders.append([(item.layer.name, item.score) for item in ranked])
    assert [name for name, _ in orders[0]] == [name for name, _ in orders[1]]
    np.testing.assert_allclose(*([score for _, score in order] for order in orders), rtol=1e-3)


def ragged(model: Model, length: int | None = None) -> Texts:
    """Texts of unequal length, padded per batch or to one length."""
    arrays = padded(20)
    encoded = [
        Encoded(row[seen > 0], np.zeros(int(seen.sum()), np.int64))
        for row, seen in zip(arrays["ids"], arrays["valid"], strict=True)
    ]
    return Texts(model, "texts", encoded, None, 0, "valid", length)


def test_distillation_does_not_depend_on_the_padding() -> None:
    pytest.importorskip("torch", reason="distillation needs PyTorch")
    from redtest_onnx.training.distil.settings import DistilSettings

    settings = PruneSettings(repair="distil", distil=DistilSettings(steps=6, batch_size=8, moment_samples=16))
    results = []
    for length in (None, 60):
        model = encoder()
        bench = Workbench(model, ragged(model, length), CPU)
        layer = next(layer for layer in bench.layers("block") if layer.removable)
        pruned, repaired = rewrite(bench, Plan("test", bench.digest, (Step.of(layer),)), settings)
        assert repaired.training is not None
        assert repaired.training.steps == 6
        results.append((repaired.training, pruned.model))
    (one, short), (other, long) = results
    assert one.loss_before == pytest.approx(other.loss_before, rel=1e-3)
    assert one.loss_after == pytest.approx(other.loss_after, rel=1e-3)
    for name, tensor in short.initializers.items():
        found = long.value(long.initializers[name])
        np.testing.assert_allclose(short.value(tensor), found, rtol=1e-2, atol=1e-3)


def test_the_user_names_the_mask(tmp_path: Path) -> None:
    model = encoder(1)
    data = WithMask(open_arrays(padded(20), model), "valid")
    assert Workbench(model, data, CPU).mask == Mask("valid")

"""Positions that a mask leaves out count nowhere: the length of the padding changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import redtest_onnx as rt
from redtest_onnx.data.arrays import open_arrays
from redtest_onnx.graph.masks import Mask, find_mask
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.metrics.cka import cka
from redtest_onnx.metrics.exact import full_hsic
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


def test_the_user_names_the_mask(tmp_path: Path) -> None:
    from redtest_onnx.data.dataset import WithMask

    model = encoder(1)
    data = WithMask(open_arrays(padded(20), model), "valid")
    assert Workbench(model, data, CPU).mask == Mask("valid")

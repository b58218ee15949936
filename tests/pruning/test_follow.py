from __future__ import annotations

import numpy as np
import onnx
import pytest

import redtest_onnx as rt
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning.follow import prune_partner
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.prune import PruneSettings, rewrite
from redtest_onnx.runtime.session import RunOptions, Session
from redtest_onnx.runtime.workbench import Workbench
from tests.decoders import fused_decoder, merged_decoder, plain_decoder

CPU = RunOptions("cpu", 1)


def bench_of(model: Model) -> Workbench:
    return Workbench(model, rt.open_data(None, model, count=32), CPU)


def plan_of(bench: Workbench, name: str) -> Plan:
    layer = next(layer for layer in bench.layers("block") if layer.name == name)
    return Plan("test", bench.digest, (Step.of(layer),))


def scores(model: Model, flag: bool | None = None) -> np.ndarray:
    feeds = {"input_ids": np.array([[3, 9, 4]]), "attention_mask": np.ones((1, 3), np.int64)}
    feeds["position_ids"] = np.arange(3)[None]
    for spec in model.inputs:
        if spec.name.startswith("past"):
            feeds[model.origin_of(spec.name)] = np.zeros((1, 2, 0, 16), np.float32)
    if flag is not None:
        feeds["use_cache_branch"] = np.array([flag])
    return np.asarray(Session(model, CPU).run(feeds)["logits"])


@pytest.mark.parametrize("repair", ["none", "refit"])
def test_a_partner_file_becomes_the_same_network(repair: str) -> None:
    second = onnx.ModelProto()
    second.CopyFrom(plain_decoder().proto)
    second.producer_name = "partner"
    bench, partner = bench_of(plain_decoder()), bench_of(Model(second))
    plan = plan_of(bench, "layers.1")
    pruned, _ = rewrite(bench, plan, PruneSettings(repair=repair))  # type: ignore[arg-type]
    followed = prune_partner(bench, bench.successor(pruned.model).view.model, plan, partner)
    np.testing.assert_array_equal(scores(followed), scores(pruned.model))
    assert followed.proto.producer_name == "partner"


@pytest.mark.parametrize("repair", ["none", "refit"])
def test_both_branches_of_a_merged_decoder_are_edited_alike(repair: str) -> None:
    bench = bench_of(merged_decoder())
    plain = bench_of(plain_decoder())
    pruned, _ = rewrite(bench, plan_of(bench, "layers.1"), PruneSettings(repair=repair))  # type: ignore[arg-type]
    names = [spec.name for spec in pruned.model.inputs]
    assert "past_key_values.1.key" in names
    assert "past_key_values.2.key" not in names
    one, other = (scores(pruned.model, flag) for flag in (True, False))
    np.testing.assert_array_equal(one, other)
    if repair == "none":
        expected, _ = rewrite(plain, plan_of(plain, "layers.1"), PruneSettings(repair="none"))
        np.testing.assert_allclose(one, scores(expected.model), rtol=1e-5, atol=1e-5)


def test_another_network_is_refused() -> None:
    bench = bench_of(plain_decoder())
    plan = plan_of(bench, "layers.2")
    pruned, _ = rewrite(bench, plan, PruneSettings(repair="none"))
    with pytest.raises(InputError, match=r"has no layer like 'layers\.2'"):
        prune_partner(bench, bench.successor(pruned.model).view.model, plan, bench_of(fused_decoder(2)))

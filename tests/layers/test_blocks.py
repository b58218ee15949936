"""Blocks as configurations count them, and which of them a pruned model has lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from decoders import plain_decoder
from nets import Net

import redtest_onnx as rt
from redtest_onnx.graph.model_folder import RemovedBlocks
from redtest_onnx.layers.blocks import block_number, removed_blocks
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.prune import rewrite
from redtest_onnx.runtime.workbench import Workbench


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("model.layers.3.mlp", 3),
        ("/h.12/attn", 12),
        ("encoder.layer.0.output", 0),
        ("transformer.resblocks.7", 7),
        ("decoder/5/self", 5),
        ("blocks.10", 10),
        ("features.14", None),
        ("players.3", None),
        ("layers.x3", None),
        ("layers.3a", None),
    ],
)
def test_the_number_stands_behind_the_word(name: str, number: int | None) -> None:
    assert block_number(name) == number


def named(*names: str) -> list[Layer]:
    layer = Layer(0, "", "MatMul", 1, False, "x", "y", "y", None, 0, 0, 0, 0, None, None)
    return [replace(layer, index=k, name=name) for k, name in enumerate(names)]


def test_without_caches_a_block_is_gone_with_all_its_layers() -> None:
    net = Net(x=[None, 4])
    model = net.model(net("Relu", "x"))
    layers = named("embed", "h.0.attn", "h.0.mlp", "h.1.attn", "h.1.mlp", "h.2.mlp")
    found = removed_blocks(model, model, layers, ["embed", "h.0.attn", "h.1.attn", "h.1.mlp"], "decoder")
    assert found == RemovedBlocks(3, (1,), "decoder")
    assert removed_blocks(model, model, layers, ["h.2.mlp"]) == RemovedBlocks(3, (2,))
    assert removed_blocks(model, model, named("a", "b"), ["a"]) == RemovedBlocks(0, ())


def test_a_decoder_s_blocks_are_counted_by_their_caches() -> None:
    model = plain_decoder(3)
    bench = Workbench(model, rt.open_data(None, model), rt.RunOptions("cpu", 1))
    layers = bench.layers()
    for k in (0, 1, 2):
        steps = [Step.of(layer) for layer in layers if layer.removable and block_number(layer.name) == k]
        plan = Plan("test", model.sha256, tuple(steps))
        pruned = rewrite(bench, plan, rt.PruneSettings(repair="none"))[0].model
        found = removed_blocks(model, pruned, layers, [step.region for step in steps])
        assert found == RemovedBlocks(3, (k,))
    assert removed_blocks(model, model, layers, []) == RemovedBlocks(3, ())

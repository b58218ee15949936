from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import pytest

import redtest_onnx as rt
from redtest_onnx.errors import InputError
from redtest_onnx.graph.caches import Cache, find_caches
from redtest_onnx.graph.model import Model
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.verify import check_signature, verify, verify_generation, verify_removal
from redtest_onnx.runtime.generate import find_decoder, generate
from redtest_onnx.runtime.session import RunOptions, Session
from redtest_onnx.runtime.workbench import Workbench
from tests.decoder_variants import quantised_caches, shared_caches, windowed_caches
from tests.decoders import WIDTH, fused_decoder, inverted_decoder, plain_decoder

CPU = RunOptions("cpu", 1)
PROMPT = (3, 17, 8, 41)


def bench_of(model: Model) -> Workbench:
    return Workbench(model, rt.open_data(None, model, count=16), CPU)


def without(bench: Workbench, *layers: Layer) -> Workbench:
    plan = Plan("test", bench.digest, tuple(Step.of(layer) for layer in layers))
    pruned = apply_plan(bench.opened, plan)
    verify_removal(bench.opened, pruned, plan)
    closed = bench.successor(bench.view.close(pruned))
    verify(bench, closed)
    verify_generation(bench, closed)
    return closed


def scores(model: Model, past: int = 0) -> np.ndarray:
    """Next-token scores of one sample, after `past` tokens in random caches that depend on the layer."""
    feeds = {"input_ids": np.array([PROMPT]), "attention_mask": np.ones((1, past + len(PROMPT)), np.int64)}
    names = {spec.name for spec in model.inputs}
    if "position_ids" in names:
        feeds["position_ids"] = np.arange(past, past + len(PROMPT))[None]
    for name in names - set(feeds):
        before = model.origin_of(name)
        rng = np.random.default_rng([*before.encode()])
        feeds[before] = rng.normal(size=(1, 2, past, 16)).astype(np.float32)
    return np.asarray(Session(model, CPU).run(feeds)["logits"])


@pytest.mark.parametrize("build", [plain_decoder, fused_decoder])
def test_every_block_goes_with_its_cache(build: object) -> None:
    bench = bench_of(build())  # type: ignore[operator]
    blocks = [layer for layer in bench.layers("block") if layer.removable]
    assert [layer.name for layer in blocks] == ["layers.0", "layers.1", "layers.2"]
    for k, block in enumerate(blocks):
        pruned = without(bench, block).model
        names = [spec.name for spec in (*pruned.inputs, *pruned.outputs)]
        assert [f"past_key_values.{i}.key" in names for i in range(3)] == [True, True, False]
        assert [f"present.{i}.value" in names for i in range(3)] == [True, True, False]
        changes = {change.name: change.becomes for change in check_signature(bench.model, pruned)}
        assert changes[f"present.{k}.key"] is None
        assert changes.get("present.2.key", "present.1.key" if k < 2 else None) == (
            None if k == 2 else "present.1.key"
        )
        assert generate(Session(pruned, CPU), PROMPT, 5).agree


@pytest.mark.parametrize("build", [plain_decoder, fused_decoder])
def test_attention_alone_takes_the_cache_and_the_rest_keeps_it(build: object) -> None:
    bench = bench_of(build())  # type: ignore[operator]
    layers = {layer.name: layer for layer in bench.layers()}
    assert len(without(bench, layers["layers.1.attn"]).model.outputs) == len(bench.model.outputs) - 2
    assert without(bench, layers["layers.1.mlp"]).model.outputs == bench.model.outputs


def test_the_rest_computes_what_it_did_with_its_own_cache() -> None:
    """Closing up numbers moves no cache to another layer: an idle block goes without a trace."""
    model = plain_decoder()
    proto = type(model.proto)()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        if tensor.name in ("layers.1.o", "layers.1.down"):
            tensor.raw_data = bytes(len(tensor.raw_data))
    bench = bench_of(Model(proto))
    block = next(layer for layer in bench.layers("block") if layer.name == "layers.1")
    pruned = without(bench, block).model
    for past in (0, 5):
        np.testing.assert_allclose(scores(pruned, past), scores(bench.model, past), rtol=1e-5, atol=1e-5)


def test_skip_norms_are_fused_again() -> None:
    bench = bench_of(fused_decoder())
    blocks = [layer for layer in bench.layers("block") if layer.removable]
    for block in blocks:
        pruned = without(bench, block).model
        kinds = Counter(node.op_type for node in pruned.graph.node)
        assert kinds["SkipSimplifiedLayerNormalization"] == 4
        assert kinds["SimplifiedLayerNormalization"] == 1
        assert kinds["Add"] == 0
    nothing = bench.view.close(bench.view.model.edited(bench.view.model.proto))
    before, after = (Counter(n.op_type for n in m.graph.node) for m in (bench.model, nothing))
    assert before == after
    np.testing.assert_array_equal(scores(nothing), scores(bench.model))


def test_lengths_are_read_from_a_cache_that_is_left() -> None:
    bench = bench_of(plain_decoder(length_of_first=True))
    blocks = [layer for layer in bench.layers("block") if layer.removable]
    pruned = without(bench, blocks[0]).model
    shape = next(node for node in pruned.graph.node if node.output[0] == "past_shape")
    assert shape.input[0] == "past_key_values.0.key"
    assert pruned.origin_of("past_key_values.0.key") == "past_key_values.1.key"
    assert generate(Session(pruned, CPU), PROMPT, 5).agree
    with pytest.raises(InputError, match="the length of the past is read from it"):
        without(bench, *blocks)


def test_the_number_of_samples_is_read_from_any_cache_that_is_left() -> None:
    """PyTorch's exporter gives the length of each cache a name of its own."""
    proto = onnx.ModelProto()
    proto.CopyFrom(plain_decoder().proto)
    graph, node = proto.graph, onnx.helper.make_node
    for k, value in enumerate((*graph.input, *graph.output)):
        for size in value.type.tensor_type.shape.dim:
            if "past" in size.dim_param and value.name != "attention_mask":
                size.dim_param = f"length{k}"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, WIDTH]), "rest"))
    [words] = [k for k, each in enumerate(graph.node) if each.output[0] == "words"]
    graph.node[words].output[0] = "flat"
    for each in (
        node("Reshape", ["flat", "sizes"], ["words"]),
        node("Concat", ["n", "rest"], ["sizes"], axis=0),
        node("Shape", ["past_key_values.1.key"], ["n"], start=0, end=1, name="batch"),
    ):
        graph.node.insert(words + 1, each)
    bench = bench_of(Model(proto))
    block = next(layer for layer in bench.layers("block") if layer.name == "layers.1")
    pruned = without(bench, block).model
    shape = next(each for each in pruned.graph.node if each.output[0] == "n")
    assert shape.input[0] == "past_key_values.0.key"


def test_synthetic_caches_have_the_head_size_of_the_graph() -> None:
    sample = bench_of(fused_decoder()).sample
    assert sample["past_key_values.0.key"].shape == (1, 2, 0, WIDTH // 2)


def test_caches_are_found() -> None:
    assert find_caches(fused_decoder(2))[:1] == (Cache("past_key_values.0.key", "present.0.key", 0),)
    assert len(find_caches(plain_decoder(4))) == 8


@pytest.mark.parametrize("build", [quantised_caches, windowed_caches])
def test_caches_of_other_kinds_go_with_their_blocks(build: Callable[[], Model]) -> None:
    bench = bench_of(build())
    assert [layer.name for layer in bench.layers("block") if layer.removable] == [
        f"layers.{k}" for k in range(3)
    ]
    types = {spec.name: spec.dtype for spec in bench.model.inputs}
    for layer in bench.layers("block")[1:]:
        pruned = without(bench, layer).model
        caches = [spec for spec in pruned.inputs if spec.name.startswith("past")]
        assert [cache.name for cache in caches] == [
            f"past_key_values.{k}.{what}" for k in range(2) for what in ("key", "value")
        ]
        assert {cache.dtype for cache in caches} == {types["past_key_values.0.key"]}
        assert np.isfinite(scores_of_caches(pruned)).all()


def scores_of_caches(model: Model) -> np.ndarray:
    """Next-token scores behind caches of any type."""
    generation = generate(Session(model, CPU), PROMPT, 4)
    assert generation.agree
    return np.asarray(generation.with_cache)


def test_layers_that_share_a_cache_go_together() -> None:
    bench = bench_of(shared_caches())
    first, together = (layer for layer in bench.layers("block") if layer.removable)
    assert first.name == "layers.0"
    assert together.name == "layers.1-2"
    pruned = without(bench, first).model
    assert [s.name for s in pruned.outputs] == ["logits", "present.0.key", "present.0.value"]
    assert pruned.origin_of("present.0.key") == "present.1.key"
    assert [s.name for s in without(bench, together).model.outputs][1:] == [
        "present.0.key",
        "present.0.value",
    ]


def test_a_mask_whose_true_marks_padding_is_fed_as_such() -> None:
    """Decoders with one were left out of the check; they decode what those with the usual mask do."""
    decoder = find_decoder(inverted_decoder())
    assert decoder is not None
    assert decoder.mask is not None
    assert decoder.mask.inverted
    found, usual = (
        generate(Session(model, CPU), PROMPT, 5) for model in (inverted_decoder(), plain_decoder())
    )
    assert found == usual

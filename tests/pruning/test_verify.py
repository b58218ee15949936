"""Each part of the contract of a rewritten model is checked, and its breach is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.errors import InternalError
from redtest_onnx.pruning import verify as module
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.prune import rewrite
from redtest_onnx.pruning.verify import check_signature, verify, verify_generation
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench
from tests.decoders import plain_decoder

CPU = rt.RunOptions("cpu", 1)
MODELS = Path(__file__).parents[2] / "models"


@cache
def bench() -> Workbench:
    net = Net(x=("n", 4))
    first = net("Relu", net("MatMul", "x", net.weight(4, 4)), name="h")
    net("MatMul", first, net.weight(4, 2), name="y")
    model = net.model("y")
    return Workbench(model, rt.open_data(None, model, count=8), CPU)


def changed(edit: Callable[[onnx.ModelProto], object]) -> Workbench:
    proto = onnx.ModelProto()
    proto.CopyFrom(bench().model.proto)
    edit(proto)
    return bench().successor(rt.Model(proto))


def test_the_same_model_passes_at_every_level(monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[str] = []

    class Watched(Session):
        def __init__(self, model: rt.Model, options: rt.RunOptions, *, level: str, use: str) -> None:
            levels.append(level)
            assert use == "once"
            super().__init__(model, options, level=level, use=use)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "Session", Watched)
    verify(bench(), changed(lambda proto: None))
    assert levels == ["none", "basic", "extended"]  # the session of the last one is kept


def _metadata(proto: onnx.ModelProto) -> None:
    proto.metadata_props.add(key="a", value="b")


def _graph_metadata(proto: onnx.ModelProto) -> None:
    proto.graph.metadata_props.add(key="a", value="b")


def _opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 18


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (_opset, "opsets"),
        (lambda proto: setattr(proto, "ir_version", 8), "ir_version"),
        (lambda proto: setattr(proto, "producer_name", "me"), "producer_name"),
        (lambda proto: setattr(proto, "producer_version", "me"), "producer_version"),
        (lambda proto: setattr(proto, "domain", "me"), "domain"),
        (lambda proto: setattr(proto, "model_version", 7), "model_version"),
        (lambda proto: setattr(proto, "doc_string", "me"), "doc_string"),
        (_metadata, "metadata"),
        (_graph_metadata, "metadata"),
        (lambda proto: proto.graph.output.add().CopyFrom(proto.graph.output[0]), "outputs"),
        (lambda proto: setattr(proto.graph.input[0].type.tensor_type, "elem_type", 11), "inputs"),
    ],
)
def test_what_changed_beside_the_layers_is_named(
    edit: Callable[[onnx.ModelProto], object], what: str
) -> None:
    with pytest.raises(InternalError, match=f"^{what} changed from .* to "):
        verify(bench(), changed(edit))


def test_a_graph_that_the_checker_refuses_is_a_bug() -> None:
    def twice(proto: onnx.ModelProto) -> None:
        proto.graph.node.add().CopyFrom(proto.graph.node[0])

    with pytest.raises(InternalError, match=r"does not pass onnx\.checker"):
        verify(bench(), changed(twice))


def test_values_that_overflow_name_the_outputs_and_where_it_begins() -> None:
    def huge(proto: onnx.ModelProto) -> None:
        tensor = proto.graph.initializer[1]
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(tensor.dims, np.inf, np.float32), tensor.name))

    with pytest.raises(rt.InputError, match="without these layers y overflows") as error:
        verify(bench(), changed(huge))
    assert "(it begins at 'y', made by node_y)" in error.value.what
    assert error.value.where == bench().label
    assert "`protect`" in (error.value.hint or "")
    overflowing = changed(huge)
    verify(overflowing, overflowing)  # the original was no better


def test_a_signature_without_caches_stays_as_it_is() -> None:
    assert check_signature(bench().model, changed(lambda proto: None).model) == ()

    def renamed(proto: onnx.ModelProto) -> None:
        proto.graph.node[-1].output[0] = proto.graph.output[0].name = "z"

    with pytest.raises(InternalError, match=r"^outputs changed"):
        check_signature(bench().model, changed(renamed).model)


@cache
def decoder() -> tuple[Workbench, Workbench]:
    """A decoder, and the same without its second block."""
    model = plain_decoder()
    original = Workbench(model, rt.open_data(None, model, count=8), CPU)
    layer = next(layer for layer in original.layers("block") if layer.name == "layers.1")
    plan = Plan("test", original.digest, (Step.of(layer),))
    return original, rewrite(original, plan, rt.PruneSettings(repair="none"))[0]


def test_caches_leave_a_signature_in_pairs() -> None:
    original, rewritten = decoder()
    changes = check_signature(original.model, rewritten.model)
    assert len(changes) >= 4  # key and value, in and out
    verify(original, rewritten)
    proto = onnx.ModelProto()
    proto.CopyFrom(rewritten.model.proto)
    del proto.graph.input[[value.name for value in proto.graph.input].index("past_key_values.1.key")]
    with pytest.raises(InternalError):
        check_signature(original.model, rewritten.model.edited(proto))


def test_a_decoder_says_the_same_with_caches_and_without() -> None:
    verify_generation(*decoder())
    original, rewritten = decoder()
    verify_generation(bench(), rewritten)  # not a decoder before
    verify_generation(original, bench())


def test_a_decoder_that_says_something_else_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    original, rewritten = decoder()
    plain = module.generate
    asked: list[tuple[list[int], int]] = []

    def lying(session: Session, prompt: list[int], steps: int) -> object:
        asked.append((prompt, steps))
        found = plain(session, prompt, steps)
        if len(asked) == 1:
            return found
        return replace(found, without_cache=(7,), margin=0.5)

    monkeypatch.setattr(module, "generate", lying)
    with pytest.raises(InternalError, match="with caches the pruned decoder says"):
        verify_generation(original, rewritten)
    assert [(len(prompt), steps) for prompt, steps in asked] == [(4, 6), (4, 6)]


@pytest.mark.parametrize("outcome", ["differs", "can't be run"])
def test_a_decoder_that_never_did_is_not_held_against_it(
    outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = decoder()  # which is verified itself
    plain, asked = module.generate, list[int]()

    def other(session: Session, prompt: list[int], steps: int) -> object:
        asked.append(steps)
        if outcome == "can't be run":
            raise rt.InputError("one sample and empty caches")
        return replace(plain(session, prompt, steps), without_cache=(7,), margin=0.5)

    monkeypatch.setattr(module, "generate", other)
    verify_generation(*sides)
    assert asked == [6]


@pytest.mark.parametrize(
    ("repair", "expected"),
    [("none", ["basic", "extended"]), ("refit", ["none", "basic", "extended"])],
)
def test_a_removal_that_has_run_does_not_run_at_that_level_again(
    repair: Any, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = rt.load(MODELS / "resnet_digits.onnx")
    whole = Workbench(model, rt.open_data(MODELS / "digits.npz", model), CPU)
    layer = next(layer for layer in whole.layers("block") if layer.action == "bypass")
    chosen = rt.Plan("given", whole.digest, (Step.of(layer),))
    levels: list[str] = []

    class Watched(Session):
        def __init__(self, model: rt.Model, options: rt.RunOptions, *, level: Any, use: Any) -> None:
            levels.append(level)
            super().__init__(model, options, level=level, use=use)

    monkeypatch.setattr(module, "Session", Watched)
    rewrite(whole, chosen, rt.PruneSettings(repair=repair))
    assert levels == expected

"""Removals against an independent evaluation: the bypassed graph in onnx.reference, without ONNX Runtime."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

import redtest_onnx as rt
from redtest_onnx.graph.surgery import Removal, remove_regions
from redtest_onnx.graph.validity import full_check
from redtest_onnx.layers.layer import Layer
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

FOLDER = Path(__file__).parents[1] / "fixtures" / "interop"
CPU = rt.RunOptions("cpu", 1)
# All but those of which no layer can go without an adapter.
NAMES = tuple(
    file.stem
    for file in sorted(FOLDER.glob("*.onnx"))
    if not any(part in file.stem for part in ("forest", "pca", "keras_recurrent", "densenet", "unet"))
)


@cache
def case(name: str) -> tuple[rt.Model, dict[str, Any], tuple[Layer, ...]]:
    model = rt.load(FOLDER / f"{name}.onnx")
    data = rt.open_data(None, model, seed=1)
    layers = Workbench(model, data, CPU).layers()
    return model, data.inputs([0, 1]), tuple(layer for layer in layers if layer.action == "bypass")


def bypassed(model: rt.Model, removed: list[Layer]) -> onnx.ModelProto:
    """The original with the readers of each exit renamed to its entry; everything else stays in."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    names: dict[str, str] = {}
    for layer in removed:
        assert layer.input is not None
        names[layer.exit] = names.get(layer.input, layer.input)
    for node in proto.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    for output in proto.graph.output:
        if output.name in names:
            kept = output.name
            for node in proto.graph.node:
                node.output[:] = [f"{name}/old" if name == kept else name for name in node.output]
            proto.graph.node.append(onnx.helper.make_node("Identity", [names[kept]], [kept]))
    return proto


def check(name: str, removed: list[Layer]) -> None:
    model, feeds, _ = case(name)
    found = remove_regions(model, [Removal(layer.input or "", layer.exit) for layer in removed])
    full_check(found)
    assert (found.inputs, found.outputs, found.opsets) == (model.inputs, model.outputs, model.opsets)
    expected = ReferenceEvaluator(bypassed(model, removed)).run(None, feeds)
    outputs = Session(found, CPU, level="none").run(feeds)
    for value, output in zip(expected, model.outputs, strict=True):
        largest = max(float(np.abs(value).max(initial=0)), 1e-3)
        np.testing.assert_allclose(outputs[output.name] / largest, value / largest, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_removing_any_one_layer(name: str) -> None:
    layers = case(name)[2]
    assert layers
    for layer in layers:
        check(name, [layer])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=3, deadline=None)
@given(choice=st.data())
def test_removing_sets_of_layers(name: str, choice: st.DataObject) -> None:
    layers = case(name)[2]
    picked = choice.draw(st.sets(st.integers(0, len(layers) - 1), min_size=1))
    check(name, [layers[k] for k in sorted(picked)])


def test_the_evaluation_tells_a_wrong_removal() -> None:
    model, feeds, layers = case("jax_mlp_op21")
    right = remove_regions(model, [Removal(layers[0].input or "", layers[0].exit)])
    wrong = ReferenceEvaluator(bypassed(model, [layers[1]])).run(None, feeds)[0]
    assert not np.allclose(Session(right, CPU).run(feeds)[model.outputs[0].name], wrong, atol=1e-3)

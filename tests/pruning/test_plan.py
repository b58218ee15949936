"""What a step takes out, what a plan says of itself, and what is read of one that a person edited."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.graph.inner_widths import inner_widths
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.plan import SCHEMA, Narrowing, Plan, Step, load_plan
from redtest_onnx.runtime.workbench import Workbench


@cache
def bench() -> Workbench:
    """Residual blocks over vectors: a layer with an inner width each."""
    net = Net(x=("n", 4))
    x = net("MatMul", "x", net.weight(4, 4), name="first")
    for k in range(3):
        wide = net("Relu", net("MatMul", x, net.weight(4, 8), name=f"wide{k}"))
        x = net("Add", x, net("MatMul", wide, net.weight(8, 4)), name=f"block{k}")
    model = net.model(net("MatMul", x, net.weight(4, 2), name="y"))
    return Workbench(model, rt.open_data(None, model, count=8), rt.RunOptions("cpu", 1))


def blocks() -> list[Layer]:
    return [layer for layer in bench().layers() if layer.action == "bypass"]


def loaded(tmp_path: Path, **document: Any) -> Plan:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"steps": [], **document}), encoding="utf-8")
    return load_plan(path, bench().model, bench().layers())


def test_a_step_takes_what_goes_less_its_adapter() -> None:
    layer = replace(blocks()[0], parameters=100, added_parameters=30, macs=70, added_macs=20)
    step = Step.of(layer, 0.5)
    assert step == Step(layer.name, layer.input or "", layer.exit, "bypass", 0.5, 70, 50)
    assert Step.of(replace(layer, macs=None)).macs is None
    assert Step.of(layer).score is None
    assert Step.of(layer, 0.0).score == 0.0


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_no_document_can_hold_is_left_out(score: float) -> None:
    assert Step.of(blocks()[0], score).score is None


def test_a_layer_that_has_to_stay_gives_its_reason() -> None:
    layer = replace(blocks()[0], action=None, reason="it is the last one", name="mine")
    with pytest.raises(rt.InputError, match="layer 'mine' can't be removed: it is the last one"):
        Step.of(layer)
    with pytest.raises(rt.InputError, match="can't be removed"):
        Step.of(replace(blocks()[0], input=None))


def test_a_plan_counts_what_goes_in_words() -> None:
    step = Step("a", "x", "y", "bypass", None, 1200, None)
    one = Plan("tail", "sha", (step,))
    assert one.summary() == "remove 1 layer with 1,200 parameters, by tail"
    assert Plan("tail", "sha", (step, step)).summary() == "remove 2 layers with 2,400 parameters, by tail"
    assert Plan("tail", "sha", ()).summary() == "remove 0 layers with 0 parameters, by tail"
    widths = (Narrowing("w", 9, (0, 3), parameters=34), Narrowing("v", 5, (1,)))
    both = Plan("tail", "sha", (step,), widths=widths)
    assert both.summary() == "remove 1 layer and 11 channels of 2 inner widths with 1,234 parameters, by tail"
    single = Plan("tail", "sha", (), widths=(Narrowing("w", 3, (0, 2)),))
    assert "0 layers and 1 channel of 1 inner widths" in single.summary()
    nothing = Plan("tail", "sha", (), reason="give @data=here or @remove")
    assert nothing.summary() == "nothing to remove: give data='here' or `remove`"


def test_a_plan_is_empty_without_layers_and_channels() -> None:
    width = Narrowing("w", 3, (0, 2))
    step = Step("a", "x", "y", "bypass", None, 1, 1)
    assert Plan("tail", "sha", ()).empty
    assert not Plan("tail", "sha", (step,)).empty
    assert not Plan("tail", "sha", (), widths=(width,)).empty
    assert width.removed == 1


def test_widths_stand_in_a_document_only_where_there_are_some() -> None:
    step = Step("a", "x", "y", "bypass", 0.5, 3, None)
    plain = Plan("tail", "sha", (step,)).to_dict()
    assert list(plain) == ["schema", "criterion", "model_sha256", "steps"]
    assert plain["schema"] == SCHEMA == "redtest-onnx/plan/1"
    assert (plain["criterion"], plain["model_sha256"]) == ("tail", "sha")
    fields = {"region": "a", "input": "x", "tensor": "y", "action": "bypass", "score": 0.5}
    assert plain["steps"] == [{**fields, "parameters": 3, "macs": None, "parts": ()}]
    assert Plan("tail", "sha", (step,)).records() == plain["steps"]
    narrow = Plan("tail", "sha", (), widths=(Narrowing("w", 3, (0, 2), 0.25, 7, 9),)).to_dict()
    assert narrow["widths"] == [
        {"width": "w", "channels": 3, "kept": [0, 2], "price": 0.25, "parameters": 7, "macs": 9}
    ]


def test_a_plan_is_told_by_names_with_the_scores_that_are_numbers(tmp_path: Path) -> None:
    first, second, third = blocks()
    found = loaded(
        tmp_path,
        criterion="mine",
        model_sha256=bench().model.sha256,
        steps=[
            {"region": third.name, "score": 2, "parameters": -5},
            {"region": first.name, "score": 0.5},
            {"region": second.name, "score": "high"},
        ],
    )
    assert found.criterion == "mine"
    assert found.model_sha256 == bench().model.sha256
    assert found.steps == (Step.of(first, 0.5), Step.of(second), Step.of(third, 2))
    assert loaded(tmp_path).criterion == "plan"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"steps": {}}, "is not a plan: it has no list `steps`"),
        ({"schema": "redtest-onnx/plan/2"}, "has schema 'redtest-onnx/plan/2', not 'redtest-onnx/plan/1'"),
        ({"model_sha256": "0"}, "was made for another model than"),
        ({"steps": [{"region": "block1"}, {"region": 3}]}, "step 1 names 3, which is no layer of"),
        ({"steps": [{"region": "nowhere"}]}, "step 0 names 'nowhere', which is no layer of"),
        ({"widths": [{"width": "nowhere", "kept": [0]}]}, "`widths` names 'nowhere', which is no inner"),
        ({"widths": ["wide0"]}, "`widths` names None, which is no inner width"),
    ],
)
def test_what_is_no_plan_of_this_model_is_refused(
    document: dict[str, Any], message: str, tmp_path: Path
) -> None:
    assert "block1" in {layer.name for layer in bench().layers()}
    with pytest.raises(rt.InputError, match=message) as error:
        loaded(tmp_path, **document)
    assert str(tmp_path / "plan.json") in str(error.value)


def test_a_narrowing_needs_its_name_and_the_channels_that_stay(tmp_path: Path) -> None:
    width = inner_widths(bench().model).found[0]
    assert width.channels == 8
    found = loaded(tmp_path, widths=[{"width": width.name, "kept": [0, 7]}])
    assert found.widths == (Narrowing(width.name, 8, (0, 7)),)
    figures = {"price": 1, "parameters": 3.0, "macs": 4}
    (full,) = loaded(tmp_path, widths=[{"width": width.name, "kept": [2], **figures}]).widths
    assert full == Narrowing(width.name, 8, (2,), 1.0, 3, 4)
    assert isinstance(full.price, float)
    assert isinstance(full.parameters, int)
    zeros = {"price": 0, "parameters": 0, "macs": 0}
    (none,) = loaded(tmp_path, widths=[{"width": width.name, "kept": [2], **zeros}]).widths
    assert (none.price, none.parameters, none.macs) == (0.0, 0, 0)
    words = {"price": "much", "parameters": None, "macs": [1]}
    (unknown,) = loaded(tmp_path, widths=[{"width": width.name, "kept": [2], **words}]).widths
    assert unknown == Narrowing(width.name, 8, (2,))


@pytest.mark.parametrize("kept", [None, [], [8], [-1], [2, 1], [1, 1], [True], [1.0], "01", {"0": 1}])
def test_channels_that_can_not_stay_are_refused(kept: object, tmp_path: Path) -> None:
    name = inner_widths(bench().model).found[0].name
    with pytest.raises(rt.InputError, match="must be some of its 8 channels, in rising order"):
        loaded(tmp_path, widths=[{"width": name, "kept": kept}])


def test_inner_widths_are_looked_for_in_the_opened_model(tmp_path: Path) -> None:
    width = inner_widths(bench().model).found[0]
    net = Net(x=("n", 4))
    bare = net.model(net("Relu", "x", name="y"))
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"steps": [], "widths": [{"width": width.name, "kept": [0]}]}))
    assert load_plan(path, bare, (), bench().model).widths[0].kept == (0,)
    with pytest.raises(rt.InputError, match="no inner width"):
        load_plan(path, bare, ())


def test_a_saved_plan_is_read_as_it_was(tmp_path: Path) -> None:
    width = inner_widths(bench().model).found[-1]
    kept = tuple(int(k) for k in np.arange(0, width.channels, 2))
    plan = Plan(
        "spread",
        bench().model.sha256,
        tuple(Step.of(layer, -0.5) for layer in blocks()[:2]),
        widths=(Narrowing(width.name, width.channels, kept, 0.125, 36, 32),),
    )
    plan.save(tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json", bench().model, bench().layers()) == plan

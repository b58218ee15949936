"""How much work training behind a refit is, and what of a model it compares."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.data.arrays import ArrayData
from redtest_onnx.pruning.repair import distilled as module
from redtest_onnx.pruning.repair.distilled import (
    TrainingOffer,
    distil_targets,
    require_training,
    training_offer,
)
from redtest_onnx.runtime.outputs.kinds import parse_output_kind
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.training.distil.settings import DistilSettings


@cache
def bench(width: int = 4) -> Workbench:
    net = Net(x=("n", 4))
    first = net("Relu", net("MatMul", "x", net.weight(4, width)))
    model = net.model(net("MatMul", first, net.weight(width, 2), name="y"))
    values = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    return Workbench(model, ArrayData.in_memory("drawn", {"x": values}), rt.RunOptions("cpu", 1))


def installed(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: object() if there and name == "torch" else None)


@pytest.mark.parametrize(("mirror", "times"), [(False, 1), (True, 2)])
def test_work_is_counted_of_both_models(mirror: bool, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, True)
    original, pruned = bench(4), bench(3)
    assert (original.cost.macs, pruned.cost.macs) == (24, 18)
    samples = len(original.splits.fit)
    expected = times * samples * 24 + 3 * 7 * 5 * 18
    settings = DistilSettings(steps=7, batch_size=5, mirror=mirror, unasked_macs=float(expected))
    assert training_offer(original, pruned, settings) == TrainingOffer(expected, True, True)
    less = replace(settings, unasked_macs=expected - 1.0)
    assert training_offer(original, pruned, less) == TrainingOffer(expected, True, False)
    timed = replace(less, seconds=3.0)
    assert training_offer(original, pruned, timed).accepted


def test_without_pytorch_nothing_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, False)
    found = training_offer(bench(4), bench(3), DistilSettings(seconds=3.0))
    assert (found.installed, found.accepted) == (False, False)
    assert found.macs is not None
    with pytest.raises(rt.RedtestError, match="distillation needs PyTorch") as error:
        require_training()
    assert "repair='refit'" in (error.value.hint or "")
    installed(monkeypatch, True)
    require_training()


def test_unknown_work_is_accepted_only_within_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, True)

    class Unknown(Workbench):
        @property
        def cost(self):  # type: ignore[no-untyped-def, override]
            return replace(super().cost, macs=None)

    other = Unknown(bench(4).model, bench(4).data, bench(4).options)
    for sides in ((other, bench(3)), (bench(4), other)):
        assert training_offer(*sides, DistilSettings()) == TrainingOffer(None, True, False)
        assert training_offer(*sides, DistilSettings(seconds=1.0)).accepted


def stages() -> Net:
    """Two stages of images of other sizes, pooled, with scores behind a softmax."""
    net = Net(image=("n", 3, 8, 8))
    x = net("Relu", net.conv("image", 3, 4, name="stem"), name="first")
    x = net("Add", net.conv(net("Relu", net.conv(x, 4, 4)), 4, 4), x, name="second")
    x = net("Relu", net.conv(x, 4, 6, stride=2), name="third")
    x = net("Add", net.conv(net("Relu", net.conv(x, 6, 6)), 6, 6), x, name="fourth")
    pooled = net("Flatten", net("GlobalAveragePool", x))
    net("Gemm", pooled, net.weight(6, 5), net.weight(5), name="scores")
    return net


def targets(model: rt.Model, student: rt.Model | None = None, *kinds: str) -> dict[str, tuple[str, int]]:
    pytest.importorskip("torch", reason="the targets' type is the trainer's")
    options = rt.RunOptions("cpu", 1, output_kinds=tuple(map(parse_output_kind, kinds)))
    own = Workbench(model, rt.open_data(None, model, count=8), options)
    return {target.name: (target.kind, target.axis) for target in distil_targets(own, student or model)}


def test_scores_are_compared_in_front_of_a_softmax_and_stages_at_their_ends() -> None:
    net = stages()
    model = net.model(net("Softmax", "scores", axis=1, name="y"))
    found = targets(model)
    ends = dict.fromkeys(("first", "second", "fourth"), ("feature", -1))
    assert found == {"scores": ("classes", 1), **ends}
    logits = targets(stages().model("scores"), None, "scores=classes")
    assert logits["scores"] == ("classes", 1)
    assert logits.keys() == {"scores", *ends}


def test_other_outputs_are_compared_by_their_kinds() -> None:
    net = stages()
    bent = net("Sigmoid", "scores", name="y")
    assert targets(net.model(bent), None, "y=values")["y"] == ("values", -1)
    net = stages()
    assert targets(net.model(net("Tanh", "scores", name="y")), None, "y=embedding")["y"][0] == "embedding"
    net = stages()
    assert "y" not in targets(net.model(net("Tanh", "scores", name="y")), None, "y=ignore")


def test_what_the_student_lacks_or_has_narrower_is_left_out() -> None:
    net = stages()
    model = net.model(net("Softmax", "scores", axis=1, name="y"))
    net = Net(image=("n", 3, 8, 8))
    x = net("Relu", net.conv("image", 3, 4, name="stem"), name="first")
    x = net("Relu", net.conv(x, 4, 3), name="second")  # of fewer channels
    x = net("Relu", net.conv(x, 3, 6, stride=2), name="fourth")
    net("Gemm", net("Flatten", net("GlobalAveragePool", x)), net.weight(6, 5), net.weight(5), name="logits")
    student = net.model(net("Softmax", "logits", axis=1, name="y"))
    found = targets(model, student)
    assert found == {"y": ("values", -1), "first": ("feature", -1), "fourth": ("feature", -1)}

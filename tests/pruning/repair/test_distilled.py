"""Distillation as a repair: kept only where held-out samples agree more, reported apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.data.dataset import Subset
from redtest_onnx.graph.files import parse
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.repair import repair as module
from redtest_onnx.pruning.repair.distilled import distil_targets
from redtest_onnx.pruning.repair.repair import RepairSettings, repair
from redtest_onnx.report.prunings import repair_words
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.training.distil.settings import DistilSettings

pytest.importorskip("torch", reason="distillation needs PyTorch")

MODELS = Path(__file__).parents[3] / "models"
CPU = rt.RunOptions("cpu", 1)


def case(name: str) -> tuple[Workbench, rt.Model, Plan]:
    model = rt.load(MODELS / f"{name}_digits.onnx")
    bench = Workbench(model, rt.open_data(MODELS / "digits.npz", model), CPU).opened
    removable = [layer for layer in bench.layers() if layer.action == "bypass"]
    plan = Plan("manual", model.sha256, tuple(map(Step.of, removable[1:13:2])))
    return bench, apply_plan(bench, plan), plan


def test_training_is_kept_where_held_out_samples_agree_more() -> None:
    bench, pruned, plan = case("vit")
    settings = RepairSettings("distil", distil=DistilSettings(steps=40, moment_samples=64))
    refitted, before = repair(bench, pruned, plan, replace(settings, method="refit"))
    trained, found = repair(bench, pruned, plan, settings)
    assert found.training is not None
    assert found.training.steps == 40
    assert found.loss is not None
    assert before.loss is not None
    judge = bench.evaluator(bench.splits.choose)
    agreement = [judge.evaluate(side.session()).agreement for side in (refitted, trained)]
    if found.method == "distil":
        assert found.loss <= before.loss + 0.02
        assert agreement[1].relative_l2 < 1.05 * agreement[0].relative_l2
    else:
        assert found.method == "refit"


def test_training_that_harms_is_reported_and_not_kept() -> None:
    bench, pruned, plan = case("resnet")
    settings = RepairSettings("distil", distil=DistilSettings(steps=3, lr=10.0, moment_samples=64))
    _, found = repair(bench, pruned, plan, settings)
    assert found.method == "refit"
    assert found.training is not None


def test_outputs_are_compared_by_their_kind() -> None:
    net = Net(x=["n", 3, 8, 8])
    block = net("Relu", net.conv(net.conv("x", 3, 4), 4, 4))
    pooled = net("Flatten", net("GlobalAveragePool", block))
    scores = net("Gemm", pooled, net.weight(4, 5), net.weight(5))
    model = net.model(net("Softmax", scores, axis=1))
    bench = Workbench(model, rt.open_data(None, model), CPU)
    targets = {target.name: target.kind for target in distil_targets(bench, model)}
    assert targets[scores] == "classes"
    assert set(targets.values()) <= {"classes", "feature"}


def test_the_command_says_what_was_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "r.json"
    arguments = ["prune", str(MODELS / "vit_digits.onnx"), "--data", str(MODELS / "digits.npz")]
    arguments += ["--remove", "6", "--repair", "distil", "--repair-time", "3s", "--threads", "1"]
    assert run([*arguments, "-o", str(tmp_path / "o.onnx"), "--json", str(report)]) == 0
    training = json.loads(report.read_text(encoding="utf-8"))["repair"]["training"]
    assert 0 <= training["steps"] <= 256  # how many fit into the time is the machine's affair
    assert "without labels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--repair", "refit", "--repair-time", "2m"], "--repair distil"),
        (["--repair", "distil", "--repair-time", "soon"], "not a time"),
    ],
)
def test_wrong_options(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prune", str(MODELS / "vit_digits.onnx"), *options]) == 2
    assert words in capsys.readouterr().err


@pytest.fixture(scope="module")
def lossy() -> tuple[Workbench, rt.Model, Plan]:
    """So much is removed that a refit loses something."""
    model = rt.load(MODELS / "vit_digits.onnx")
    bench = Workbench(model, Subset(rt.open_data(MODELS / "digits.npz", model), np.arange(200)), CPU).opened
    plan = Plan("manual", model.sha256, tuple(Step.of(layer) for layer in bench.layers()[1:15]))
    return bench, apply_plan(bench, plan), plan


SHORT = DistilSettings(steps=30, moment_samples=64)


def test_auto_trains_where_a_refit_loses_something(lossy: tuple[Workbench, rt.Model, Plan]) -> None:
    _, refitted = repair(*lossy, RepairSettings("refit"))
    _, found = repair(*lossy, RepairSettings("auto", distil=SHORT))
    assert found.training is not None
    assert found.training.steps == 30
    assert found.offer is None
    assert found.loss is not None
    assert refitted.loss is not None
    assert found.loss <= refitted.loss
    if found.method == "distil":
        assert found.fitted_on == len(lossy[0].splits.fit)


def test_auto_trains_only_where_the_work_is_bounded(lossy: tuple[Workbench, rt.Model, Plan]) -> None:
    settings = RepairSettings("auto", distil=replace(SHORT, unasked_macs=1.0))
    _, found = repair(*lossy, settings)
    assert found.training is None
    assert found.offer is not None
    assert found.offer.installed
    assert found.offer.macs is not None
    assert found.offer.macs > 1
    assert "--repair distil" in repair_words(found)
    _, found = repair(*lossy, replace(settings, distil=replace(settings.distil, seconds=2.0)))
    assert found.training is not None


def test_auto_says_what_pytorch_would_bring(
    lossy: tuple[Workbench, rt.Model, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redtest_onnx.pruning.repair.distilled.find_spec", lambda name: None)
    _, found = repair(*lossy, RepairSettings("auto"))
    assert found.training is None
    assert "pip install" in repair_words(found)


def test_auto_does_not_train_where_a_refit_loses_nothing(lossy: tuple[Workbench, rt.Model, Plan]) -> None:
    bench, _, plan = lossy
    plan = replace(plan, steps=plan.steps[:2])
    _, found = repair(bench, apply_plan(bench, plan), plan, RepairSettings("auto", distil=SHORT))
    assert found.training is None
    assert found.offer is None


def test_without_pytorch_it_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from redtest_onnx.pruning.repair import distilled

    monkeypatch.setattr(distilled, "find_spec", lambda name: None)
    bench, pruned, plan = case("vit")
    monkeypatch.setattr(module, "fit_to_original", lambda *_: pytest.fail("work was done"))
    with pytest.raises(rt.RedtestError, match="needs PyTorch"):
        repair(bench, pruned, plan, RepairSettings("distil"))


def test_operators_that_pytorch_lacks_are_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, pruned, plan = case("vit")
    proto = onnx.ModelProto()
    proto.CopyFrom(pruned.proto)
    scale = onnx.numpy_helper.from_array(np.float32(0.1), "scale")
    proto.graph.initializer.append(scale)
    last = proto.graph.node[-1].output[0]
    proto.graph.node[-1].output[0] = "exact"
    proto.graph.node.append(onnx.helper.make_node("QuantizeLinear", ["exact", "scale"], ["rounded"]))
    proto.graph.node.append(onnx.helper.make_node("DequantizeLinear", ["rounded", "scale"], [last]))
    monkeypatch.setattr(module, "fit_to_original", lambda *_: pytest.fail("work was done"))
    with pytest.raises(rt.RedtestError, match="because of its operators"):
        repair(bench, parse(proto), plan, RepairSettings("distil"))

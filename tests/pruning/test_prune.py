"""What comes out of a pruning: in a line, in a table, and what is told on the way."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

import redtest_onnx as rt
from redtest_onnx.data.dataset import Subset
from redtest_onnx.pruning.curve import Curve, CurvePoint
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.prune import Pruning, prune
from redtest_onnx.report.curves import chosen_words
from redtest_onnx.report.prunings import judged_words
from redtest_onnx.runtime.workbench import Workbench
from tests.nets import Net

MODELS = Path(__file__).parents[2] / "models"
CPU = rt.RunOptions("cpu", 1)
told: list[tuple[int, int, str]] = []


@cache
def pruned() -> Pruning:
    model = rt.load(MODELS / "resnet_digits.onnx")
    data = Subset(rt.open_data(MODELS / "digits.npz", model), np.arange(160))
    analysis = rt.analyze(model, data, rt.AnalysisSettings(samples=32, batches=2), CPU)
    bench = Workbench(model, data, CPU)
    layers = [layer for layer in bench.layers() if layer.action == "bypass"]
    plan = Plan("test", bench.digest, tuple(map(Step.of, layers[:3])))
    return prune(
        bench, plan, analysis, rt.PruneSettings(repair="none"), progress=lambda *step: told.append(step)
    )


def test_a_line_tells_what_went_and_what_that_did() -> None:
    found = pruned()
    share = 1 - found.after.cost.parameters / found.before.cost.parameters
    assert found.before.accuracy is not None
    quality = f"accuracy {found.before.accuracy:.2%} -> {found.after.accuracy:.2%}"
    layers = len(found.analysis.layers)
    assert found.summary().startswith(
        f"3 of {layers} layers removed, {share:.1%} of the parameters; {quality} on "
    )
    assert found.summary().endswith(f"on {found.evaluated} samples of {found.evaluated_on}")
    assert len(repr(found)) < 400
    assert len(repr(found.plan)) < 400


def test_each_quantity_stands_before_and_after() -> None:
    found = pruned()
    rows = {row["quantity"]: (row["before"], row["after"]) for row in found.records()}
    assert rows["parameters"] == (found.before.cost.parameters, found.after.cost.parameters)
    assert rows["file_bytes"] == (found.before.file_bytes, found.after.file_bytes)
    assert rows["latency_ms"] == (found.before.latency.p50, found.after.latency.p50)
    assert rows["msrs"] == (found.before.msrs, found.after.msrs)
    assert rows["accuracy"] == (found.before.accuracy, found.after.accuracy)
    assert rows["parameters"][0] > rows["parameters"][1]
    assert rows["msrs"][0] != rows["msrs"][1]


def test_steps_of_the_whole_way_are_told_in_order() -> None:
    pruned()
    whole = [step for step in told if step[1] == 4]
    assert [done for done, _, _ in whole] == [0, 1, 2, 3, 4]
    assert whole[0][2] == "rewriting"
    assert {what for _, _, what in told} >= {"comparing outputs", "measuring latency", "measuring redundancy"}
    assert all(total == 4 for _, total, what in told if what.startswith(("comparing outputs", "measuring")))


def test_without_labels_agreement_is_told() -> None:
    model = rt.load(MODELS / "vgg_digits.onnx")
    samples = {"input": np.load(MODELS / "digits.npz")["calibration/input"][:60]}
    found = rt.prune(model, samples, remove=1, settings=rt.PruneSettings(repair="none"))
    assert f"{found.agreement.value:.2%} agreement on " in found.summary()
    assert "accuracy" not in found.summary()


def test_samples_that_chose_what_they_judge_are_told() -> None:
    found = pruned()
    assert not found.judged_apart
    words = (
        f"{found.evaluated} held-out samples of {found.evaluated_on}, by which plans and repairs are chosen"
    )
    assert judged_words(found).startswith(words)
    apart = replace(found, judged_apart=True)
    assert judged_words(apart) == f"{found.evaluated} samples of {found.evaluated_on}"
    chosen = [
        CurvePoint(replace(each, repair=replace(each.repair, loss=0.0)), 0.0) for each in (found, apart)
    ]
    ends = [chosen_words(Curve((point,), (), 0, 0.01)).partition("samples")[2] for point in chosen]
    assert ends == [
        ", which the figures are of, too.",
        "; the figures are of other samples, which choose nothing.",
    ]


def test_a_model_of_one_vector_is_pruned_as_the_same_with_an_axis_of_samples() -> None:
    """Similarity, the chosen layer and the repair: sample by sample, and in batches."""
    values = np.random.default_rng(0).normal(size=(60, 20)).astype(np.float32)
    found = []
    for sizes in ([20], ["N", 20]):
        net, rng = Net(x=sizes), np.random.default_rng(1)
        h = "x"
        for width in (20, 12, 12, 12):
            product = net("MatMul", h, net.store(rng.normal(size=(width, 12)) / width**0.5))
            h = net("Relu", net("Add", product, net.weight(12)))
        net("MatMul", h, net.weight(12, 3), name="y")
        model = net.model("y")
        found.append(rt.prune(model, {"x": values}, remove=1, settings=rt.PruneSettings(repair="refit")))
    one, batch = found
    np.testing.assert_allclose(one.analysis.similarity, batch.analysis.similarity, atol=1e-4)
    assert [step.tensor for step in one.plan.steps] == [step.tensor for step in batch.plan.steps]
    assert one.repair.refits
    assert abs(one.agreement.relative_l2 - batch.agreement.relative_l2) < 0.05

"""Plans and prunings as JSON: every figure stands where its name says."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.metrics.agreement.summary import Agreement, OutputAgreement
from redtest_onnx.pruning.documents import plan_document, prune_document
from redtest_onnx.pruning.plan import Narrowing, Plan, Step
from redtest_onnx.pruning.prune import Measures, Pruning, compare, rewrite
from redtest_onnx.runtime.latency import Latency
from redtest_onnx.runtime.workbench import Workbench

CPU = rt.RunOptions("cpu", 1)


@cache
def pruning() -> Pruning:
    """Blocks over vectors, the last one removed and the rest refitted."""
    net = Net(x=("n", 6))
    x = net("MatMul", "x", net.weight(6, 6))
    for _ in range(4):
        x = net("Add", x, net("MatMul", net("Relu", net("MatMul", x, net.weight(6, 4))), net.weight(4, 6)))
    model = net.model(net("MatMul", x, net.weight(6, 3), name="y"))
    samples = {"x": np.random.default_rng(0).normal(size=(90, 6)).astype(np.float32)}
    bench = Workbench(model, rt.open_data(samples, model), CPU)
    analysis = rt.analyze(bench, settings=rt.AnalysisSettings(samples=32, batches=2))
    layer = next(layer for layer in reversed(analysis.layers) if layer.action == "bypass")
    plan = Plan("tail", bench.digest, (Step.of(layer, 0.5),))
    pruned, repair = rewrite(bench, plan, rt.PruneSettings(repair="refit"))
    return compare(bench, pruned, plan, analysis, repair)


def test_a_plan_stands_beside_the_model_and_its_layers() -> None:
    found = pruning()
    assert found.original is not None
    width = Narrowing("w", 4, (0, 2), 0.5, 3, 9)
    plan = replace(found.plan, widths=(width,))
    document = plan_document(found.original, found.before.cost, plan, found.analysis.layers)
    assert document["schema"].startswith("redtest-onnx/prune/")
    assert document["plan"]["criterion"] == "tail"
    assert [step["region"] for step in document["plan"]["steps"]] == [found.plan.steps[0].region]
    assert document["plan"]["widths"][0]["kept"] == [0, 2]
    assert [layer["name"] for layer in document["layers"]] == [layer.name for layer in found.analysis.layers]
    assert document["model"]["parameters"] == found.before.cost.parameters
    assert document["output"] is None
    assert "after" not in document


def test_both_sides_of_a_pruning_are_told() -> None:
    found = pruning()
    document = prune_document(found, Path("out.onnx"))
    for name, side in (("before", found.before), ("after", found.after)):
        written = document[name]
        assert written["parameters"] == side.cost.parameters
        assert written["macs"] == side.cost.macs
        assert written["file_bytes"] == side.file_bytes
        assert written["latency_ms"]["p50"] == side.latency.p50
        assert written["msrs"] == side.msrs
        assert written["accuracy"] is None
    assert document["before"]["parameters"] > document["after"]["parameters"]
    assert document["output"] == "out.onnx"
    assert document["rounds"] == []
    assert document["provider"] is None
    assert document["evaluation"] == {
        "source": found.evaluated_on,
        "samples": found.evaluated,
        "apart": False,
    }
    assert document["agreement"]["value"] == found.agreement.value
    assert [entry["name"] for entry in document["outputs"]] == ["y"]
    json.dumps(document, allow_nan=False)
    assert found.to_dict() == {**document, "output": None}


def test_a_repair_lists_its_operators() -> None:
    found = pruning()
    document = prune_document(found, None)["repair"]
    assert found.repair.method == document["method"] == "refit"
    assert "refits" not in document
    assert len(document["operators"]) == len(found.repair.refits) > 0
    for entry, refit in zip(document["operators"], found.repair.refits, strict=True):
        assert entry["operator"] == refit.operator
        assert entry.keys() == vars(refit).keys()
    assert document["loss"] == found.repair.loss
    assert document["fitted_on"] == found.repair.fitted_on > 0


def measured(accuracy: float | None, parameters: int, found: Pruning) -> Measures:
    cost = replace(found.before.cost, parameters=parameters)
    return Measures(cost, 10 * parameters, Latency(float(parameters), 2.0, 3.0, 4), 0.5, accuracy)


@pytest.mark.parametrize(
    ("accuracies", "agreement", "words"),
    [
        ((0.5, 0.25), 0.75, "accuracy 50.00% -> 25.00%"),
        ((0.5, 0.0), 0.75, "accuracy 50.00% -> 0.00%"),
        ((None, 0.25), 0.75, "75.00% agreement"),
        ((0.5, None), 0.75, "75.00% agreement"),
        ((None, None), None, "outputs that can't be judged"),
        ((None, None), 0.0, "0.00% agreement"),
    ],
)
def test_a_line_tells_the_best_known_quality(
    accuracies: tuple[float | None, float | None], agreement: float | None, words: str
) -> None:
    found = pruning()
    before, after = accuracies
    judged = Agreement(None, 1.0, 0.0, (OutputAgreement("y", "values", None, "closeness", agreement),))
    changed = replace(
        found,
        before=measured(before, 200, found),
        after=measured(after, 50, found),
        agreement=judged,
        evaluated=7,
        evaluated_on="here",
    )
    count = len(found.analysis.layers)
    assert changed.summary() == (
        f"1 of {count} layers removed, 75.0% of the parameters; {words} on 7 samples of here"
    )
    widths = (Narrowing("w", 2000, tuple(range(800))), Narrowing("v", 5, (0, 1)))
    both = replace(changed, plan=replace(found.plan, widths=widths)).summary()
    assert both.startswith(f"1 of {count} layers and 1,203 channels removed, 75.0%")
    rows = {row["quantity"]: (row["before"], row["after"]) for row in changed.records()}
    assert rows["parameters"] == (200, 50)
    assert rows["file_bytes"] == (2000, 500)
    assert rows["latency_ms"] == (200.0, 50.0)
    assert rows["accuracy"] == accuracies
    assert rows["msrs"] == (0.5, 0.5)

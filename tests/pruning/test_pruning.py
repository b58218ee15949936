"""Plans, budgets and the whole way of pruning on the embedded models."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

import redtest_onnx as rt
from redtest_onnx.data.splits import Splits, fit_indices
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.graph.surgery import Removal, remove_regions
from redtest_onnx.graph.validity import full_check
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.budget import make_plan
from redtest_onnx.pruning.criteria import base as criteria
from redtest_onnx.pruning.plan import Step, load_plan
from redtest_onnx.pruning.targets import Quantities
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

MODELS = Path(__file__).parents[2] / "models"
CPU = rt.RunOptions("cpu")
QUICK = rt.AnalysisSettings(samples=64, batches=2)


@cache
def case(name: str) -> tuple[rt.Model, rt.Dataset, rt.Analysis]:
    model = rt.load(MODELS / f"{name}_digits.onnx")
    data = rt.open_data(MODELS / "digits.npz", model)
    return model, data, rt.analyze(model, data, QUICK, CPU)


def totals(model: rt.Model, data: rt.Dataset) -> dict[str, int | None]:
    cost = Workbench(model, data, CPU).cost
    return {"params": cost.parameters, "macs": cost.macs}


@cache
def quantities(name: str) -> Quantities:
    model, data, _ = case(name)
    return Quantities(Workbench(model, data, CPU))


@cache
def context(name: str) -> criteria.CriterionContext:
    model, data, analysis = case(name)
    splits = replace(Splits.of(data, 0), fit=fit_indices(data, 0)[:64])
    return criteria.CriterionContext(Workbench(model, data, CPU, seed=3, splits=splits), analysis)


def plan_for(name: str, budget: rt.Budget, criterion: str = "redtest") -> rt.Plan:
    return make_plan(context(name), budget, criterion)


def test_redtest_takes_the_later_layers_of_the_most_similar_pairs() -> None:
    _, _, analysis = case("resnet")
    plan = plan_for("resnet", rt.Budget(remove=3))
    bypassable = [
        (value, layer.name)
        for layer, value in zip(analysis.layers[1:], analysis.adjacent, strict=True)
        if layer.removable
    ]
    assert {step.region for step in plan.steps} == {name for _, name in sorted(bypassable)[-3:]}


def test_redtest_adjacent_compares_with_the_layer_before() -> None:
    analysis = case("resnet")[2]
    similar = [
        layer.name
        for layer, similarity in zip(analysis.layers[1:], analysis.adjacent, strict=True)
        if layer.removable and similarity >= 0.98
    ]
    names = {
        criterion: [step.region for step in plan_for("resnet", rt.Budget(threshold=0.98), criterion).steps]
        for criterion in ("redtest", "redtest-adjacent")
    }
    assert names["redtest-adjacent"] == similar
    assert len(names["redtest"]) < len(similar)


def test_threshold_compares_with_the_last_kept_layer() -> None:
    _, _, analysis = case("resnet")
    kept, expected = 0, []
    for k in range(1, len(analysis.layers)):
        if analysis.layers[k].removable and analysis.similarity[kept, k] >= 0.97:
            expected.append(analysis.layers[k].name)
        else:
            kept = k
    found = plan_for("resnet", rt.Budget(threshold=0.97))
    assert expected
    assert [step.region for step in found.steps] == expected


@pytest.mark.parametrize("quantity", ["params", "macs"])
def test_target_is_reached_with_the_fewest_layers(quantity: str) -> None:
    model, data, _ = case("resnet")
    total = totals(model, data)[quantity]
    assert total is not None
    plan = plan_for("resnet", rt.Budget(targets=((quantity, 0.8),)))
    gone = [step.parameters if quantity == "params" else step.macs or 0 for step in plan.steps]
    assert total - sum(gone) <= 0.8 * total
    weakest = min(plan.steps, key=lambda step: step.score or 0)
    spared = weakest.parameters if quantity == "params" else weakest.macs or 0
    assert total - sum(gone) + spared > 0.8 * total


def test_target_out_of_reach_is_a_negative_verdict() -> None:
    with pytest.raises(rt.NegativeVerdictError, match="can't be reached"):
        plan_for("resnet", rt.Budget(targets=(("params", 0.001),)))


def test_more_layers_than_can_go_is_an_error() -> None:
    with pytest.raises(rt.NegativeVerdictError, match="can go"):
        plan_for("resnet", rt.Budget(remove=28))


def test_protected_layers_stay() -> None:
    free = plan_for("resnet", rt.Budget(remove=3))
    name = free.steps[-1].region
    held = plan_for("resnet", rt.Budget(remove=3, protect=(name,)))
    assert name not in {step.region for step in held.steps}
    assert len(held.steps) == 3


def test_protecting_an_unknown_layer_is_an_error() -> None:
    with pytest.raises(rt.InputError, match="matches no layer"):
        plan_for("resnet", rt.Budget(remove=1, protect=("nothing.like.that",)))


def test_first_layer_gives_its_reason() -> None:
    _, _, analysis = case("vgg")
    with pytest.raises(rt.InputError, match="model's input"):
        Step.of(analysis.layers[0])


SETS = ("spread", "every-other", "best-of")


@pytest.mark.parametrize("criterion", criteria.names())
def test_every_criterion_ranks_all_candidates_reproducibly(criterion: str) -> None:
    _, _, analysis = case("vgg")
    first, second = (list(criteria.rank(criterion, context("vgg"))) for _ in range(2))
    assert first == second
    ranked = {s.layer.name for s in first}
    if criterion in SETS:  # which need not take every layer, and none in whose place an adapter goes
        assert ranked
        assert ranked <= {layer.name for layer in analysis.layers if layer.action == "bypass"}
    else:
        assert ranked == {layer.name for layer in analysis.layers if layer.removable}
    if criterion != "output-effect":  # whose scores are those of all removals so far
        assert [s.score for s in first] == sorted((s.score for s in first), reverse=True)


def test_output_effect_takes_what_changes_the_outputs_least() -> None:
    model, data, analysis = case("resnet")
    first = next(criteria.rank("output-effect", context("resnet")))
    judge = Workbench(model, data, CPU).evaluator(context("resnet").indices)
    effects = {}
    for layer in analysis.layers:
        if layer.action == "bypass":
            pruned = remove_regions(model, [Removal(layer.input or "", layer.exit)])
            effects[layer.name] = judge.evaluate(pruned).agreement.relative_l2
    assert first.layer.name == min(effects, key=lambda name: effects[name])
    assert -first.score == pytest.approx(min(effects.values()))


def test_block_influence_is_the_cosine_of_both_ends() -> None:
    chosen = context("vit")
    layer = next(layer for layer in chosen.candidates if layer.kind == "attention")
    feeds = chosen.data.inputs(chosen.indices)
    ends = Session(expose(chosen.model, [layer.input or "", layer.exit]), CPU).run(feeds)
    a, b = (ends[name].reshape(-1, 48).astype(np.float64) for name in (layer.input, layer.exit))
    expected = np.mean((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
    found = {item.layer: item.score for item in criteria.rank("block-influence", chosen)}
    assert found[layer] == pytest.approx(expected, rel=1e-5)


def test_criteria_of_other_packages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("mine", "redtest_onnx.pruning.criteria.base:tail", "redtest_onnx.criteria")
    monkeypatch.setattr(criteria, "entry_points", lambda group: [entry])
    assert "mine" in criteria.names()
    mine = list(criteria.rank("mine", context("vgg")))
    assert mine == list(criteria.rank("tail", context("vgg")))


def test_plan_file_comes_back(tmp_path: Path) -> None:
    model, _, analysis = case("resnet")
    plan = plan_for("resnet", rt.Budget(remove=4))
    plan.save(tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json", model, analysis.layers) == plan


def test_plan_needs_names_only_and_sorts_them(tmp_path: Path) -> None:
    model, _, analysis = case("resnet")
    plan = plan_for("resnet", rt.Budget(remove=3))
    names = [{"region": step.region} for step in reversed(plan.steps)]
    (tmp_path / "plan.json").write_text(json.dumps({"steps": names}))
    found = load_plan(tmp_path / "plan.json", model, analysis.layers)
    assert [step.region for step in found.steps] == [step.region for step in plan.steps]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "not JSON"),
        ("[]", "not a plan"),
        ('{"steps": [{"region": "nowhere"}]}', "no layer"),
        ('{"steps": [7]}', "no layer"),
        ('{"steps": [], "model_sha256": "0"}', "another model"),
        ('{"steps": [], "schema": "other/1"}', "schema"),
    ],
)
def test_bad_plans_are_refused(tmp_path: Path, text: str, message: str) -> None:
    model, _, analysis = case("resnet")
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(rt.InputError, match=message):
        load_plan(tmp_path / "plan.json", model, analysis.layers)


def prune(name: str, budget: rt.Budget, method: str) -> rt.Pruning:
    model, data, analysis = case(name)
    test = rt.open_data(MODELS / "digits.npz", model, split="test")
    bench = Workbench(model, data, CPU, evaluation=test)
    how = rt.PruneSettings(repair=method)  # type: ignore[arg-type]
    return rt.prune(bench, settings=how, plan=plan_for(name, budget), analysis=analysis)


def test_plain_pruning_of_the_deep_network_costs_next_to_nothing() -> None:
    result = prune("resnet", rt.Budget(remove=5), "none")
    assert result.before.accuracy is not None
    assert result.after.accuracy is not None
    assert result.after.cost.parameters <= 0.8 * result.before.cost.parameters
    assert result.after.accuracy >= result.before.accuracy - 0.02
    assert result.model.inputs == case("resnet")[0].inputs
    full_check(result.model)


def test_removed_parameters_are_those_the_plan_promised() -> None:
    result = prune("resnet", rt.Budget(remove=5), "none")
    promised = sum(step.parameters for step in result.plan.steps)
    assert result.before.cost.parameters - result.after.cost.parameters == promised
    macs = sum(step.macs or 0 for step in result.plan.steps)
    assert result.before.cost.macs is not None
    assert result.after.cost.macs == result.before.cost.macs - macs


def test_refit_repairs_a_plain_chain() -> None:
    plain, fitted = (prune("vgg", rt.Budget(remove=4), method) for method in ("none", "auto"))
    assert plain.after.cost == fitted.after.cost
    assert plain.after.accuracy is not None
    assert fitted.after.accuracy is not None
    assert fitted.before.accuracy is not None
    assert plain.after.accuracy < 0.5
    assert fitted.after.accuracy >= fitted.before.accuracy - 0.01
    assert fitted.after.cost.parameters <= 0.7 * fitted.before.cost.parameters


def test_adapters_take_the_place_of_layers_that_change_the_shape() -> None:
    model, data, analysis = case("vgg")
    changing = [layer for layer in analysis.layers if layer.action == "adapter"]
    assert changing
    plan = rt.Plan("test", model.sha256, tuple(Step.of(layer) for layer in changing[:2]))
    result = rt.prune(model, data, plan=plan, analysis=analysis, options=CPU)
    promised = sum(step.parameters for step in plan.steps)
    assert result.after.cost.parameters == result.before.cost.parameters - promised
    assert result.repair.method == "refit"
    assert result.repair.loss is not None
    assert result.repair.loss_plain is not None
    assert result.repair.loss < result.repair.loss_plain


def test_repair_is_never_worse_than_plain_on_held_out_samples() -> None:
    for name in ("resnet", "vit"):
        result = prune(name, rt.Budget(remove=3), "auto")
        assert result.repair.loss is not None
        assert result.repair.loss_plain is not None
        assert result.repair.loss <= result.repair.loss_plain


def test_pruning_twice_gives_the_same_bytes() -> None:
    one, two = (prune("vgg", rt.Budget(remove=2), "refit").model.proto for _ in range(2))
    assert one.SerializeToString(deterministic=True) == two.SerializeToString(deterministic=True)


def test_pruning_nothing_returns_the_model(tmp_path: Path) -> None:
    model, data, analysis = case("vit")
    result = rt.prune(model, data, plan=rt.Plan("none", model.sha256, ()), analysis=analysis, options=CPU)
    saved = rt.save(result.model, tmp_path / "same.onnx")
    assert model.path is not None
    assert (tmp_path / "same.onnx").read_bytes() == model.path.read_bytes()
    feeds = data.inputs([0, 1, 2])
    np.testing.assert_array_equal(
        Session(saved, CPU).run(feeds)["logits"], Session(model, CPU).run(feeds)["logits"]
    )


def test_synthetic_inputs_are_no_ground_for_a_refit() -> None:
    model, _, analysis = case("vgg")
    noise = rt.open_data(None, model)
    plan = plan_for("vgg", rt.Budget(remove=1))
    result = rt.prune(model, noise, plan=plan, analysis=analysis, options=CPU)
    assert result.repair.method == "none"
    assert "synthetic" in (result.repair.reason or "")


def test_layers_of_a_plan_can_be_adjacent() -> None:
    _, _, analysis = case("resnet")
    model, data, _ = case("resnet")
    run: list[Layer] = [layer for layer in analysis.layers if layer.action == "bypass"][:3]
    plan, plain = rt.Plan("test", model.sha256, tuple(map(Step.of, run))), rt.PruneSettings(repair="none")
    result = rt.prune(model, data, plain, plan=plan, analysis=analysis, options=CPU)
    assert result.after.cost.parameters == result.before.cost.parameters - sum(x.parameters for x in run)

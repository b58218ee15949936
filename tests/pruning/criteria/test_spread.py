from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import redtest_onnx as rt
from redtest_onnx.data.dataset import Subset
from redtest_onnx.data.splits import Splits, fit_indices
from redtest_onnx.pruning.budget import Budget, Losses, make_plan
from redtest_onnx.pruning.criteria.base import CriterionContext, SetChoice
from redtest_onnx.pruning.criteria.layer_sets import LayerSets, PricedSet
from redtest_onnx.pruning.criteria.spread import StageSearch, spread, stages
from redtest_onnx.runtime.workbench import Workbench

MODELS = Path(__file__).parents[3] / "models"
CPU = rt.RunOptions(device="cpu", threads=1)


@cache
def context(name: str) -> CriterionContext:
    model = rt.load(MODELS / f"{name}_digits.onnx")
    data = Subset(rt.open_data(MODELS / "digits.npz", model), np.arange(160))
    analysis = rt.analyze(model, data, rt.AnalysisSettings(samples=32, batches=2), CPU)
    splits = replace(Splits.of(data, 0), fit=fit_indices(data, 0)[:48])
    return CriterionContext(Workbench(model, data, CPU, splits=splits), analysis)


@cache
def choice(name: str) -> LayerSets:
    return spread(context(name))


def removed(sets: SetChoice, count: int) -> list[int]:
    return [item.layer.index for item in sets.of_count(count) or []]


@pytest.mark.parametrize("name", ["resnet", "vgg", "vit"])
def test_there_is_a_set_of_bypass_layers_of_every_count(name: str) -> None:
    sets = choice(name)
    bypassed = {layer.index for layer in context(name).candidates if layer.action == "bypass"}
    assert sets.largest == len(bypassed)
    for count in range(sets.largest + 1):
        found = removed(sets, count)
        assert len(set(found)) == count
        assert bypassed.issuperset(found)
    assert sets.of_count(sets.largest + 1) is None
    assert {item.layer.index for item in sets} == bypassed


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_no_stage_pays_more_than_for_every_other_layer(name: str) -> None:
    subject = context(name)
    for stage in stages(subject):
        if len(stage) < 2:
            continue
        search = StageSearch(subject, stage, set(subject.candidates))
        prices = {len(item.layers): item.price for item in search.sets()}
        even = stage[1::2]
        assert prices[len(even)] <= search.price(even) * (1 + 1e-6)
        assert search.price(even) > 0


def test_the_price_is_below_what_removal_without_a_fit_costs() -> None:
    """The operator in front of a gap takes over part of the work: the point of pricing with a repair."""
    subject = context("resnet")
    stage = max(stages(subject), key=len)
    fitted = StageSearch(subject, stage, set(subject.candidates))
    plain = StageSearch(subject, stage, set(subject.candidates))
    plain._operators = {}
    assert fitted.price(stage[1::2]) < 0.5 * plain.price(stage[1::2])


def test_the_same_choice_every_time() -> None:
    again = spread(context("resnet"))
    assert [item.key for item in again.sets] == [item.key for item in choice("resnet").sets]


def test_protected_layers_stay_and_all_others_can_go() -> None:
    subject = context("resnet")
    kept = {subject.candidates[3], subject.candidates[4], subject.candidates[-1]}
    sets = spread(replace(subject, allowed=lambda layer: layer not in kept))
    free = [layer for layer in subject.candidates if layer.action == "bypass" and layer not in kept]
    assert removed(sets, len(free)) == [layer.index for layer in free]
    assert all(not kept.intersection(item.layers) for item in sets.sets)


def test_budgets_take_the_cheapest_set_that_meets_them() -> None:
    subject, sets = context("vit"), choice("vit")
    plan = make_plan(subject, Budget(remove=3), "spread")
    assert [step.region for step in plan.steps] == [item.layer.name for item in sets.of_count(3) or []]
    total = subject.bench.cost.parameters
    for share in (0.9, 0.7):
        steps = make_plan(subject, Budget(targets=(("params", share), ("macs", 0.95))), "spread").steps
        assert 1 - sum(step.parameters for step in steps) / total <= share
        price = -(steps[0].score or 0.0)
        cheaper = [item for item in sets.sets if item.price < price]
        assert all(
            1 - item.savings[0] / total > share or 1 - item.savings[1] / (subject.bench.cost.macs or 1) > 0.95
            for item in cheaper
        )
    sized = make_plan(subject, Budget(targets=(("size", 0.8), ("memory", 1.0))), "spread")
    assert sized.steps
    with pytest.raises(rt.NegativeVerdictError, match=r"params=0\.0001 can't be reached"):
        make_plan(subject, Budget(targets=(("params", 0.0001),)), "spread")
    with pytest.raises(rt.NegativeVerdictError, match="99 layers can't be removed"):
        make_plan(subject, Budget(remove=99), "spread")


def test_a_tolerance_is_bisected_over_counts() -> None:
    subject, tried = context("resnet"), list[int]()

    def loss(plan: rt.Plan) -> float:
        tried.append(len(plan.steps))
        return len(plan.steps) / 100

    plan = make_plan(subject, Budget(max_drop=0.07), "spread", losses=Losses(loss))
    assert len(plan.steps) == 7
    assert len(tried) <= 7
    none = make_plan(subject, Budget(remove=5, max_drop=0.001), "spread", losses=Losses(loss))
    assert not none.steps


def test_sets_of_stages_add_up() -> None:
    a, b, c = context("resnet").candidates[:3]
    empty = PricedSet((), 0.0)
    sets = LayerSets([[empty, PricedSet((a,), 3.0), PricedSet((a, b), 4.0)], [empty, PricedSet((c,), 2.0)]])
    assert next((item.layers, item.price) for item in sets.sets if len(item.layers) == 2) == ((a, b), 4.0)
    assert sets.of_count(3) is not None
    found = sets.least(lambda chosen: len(chosen) > 1)
    assert found is not None
    assert [item.score for item in found] == [-4.0, -4.0]


def test_repaired_it_is_as_good_as_redtest() -> None:
    model = rt.load(MODELS / "resnet_digits.onnx")
    data, test = (rt.open_data(MODELS / "digits.npz", model, split=part) for part in ("calibration", "test"))
    accuracy = {}
    for criterion in ("redtest", "spread"):
        bench = rt.Workbench(model, data, CPU, evaluation=test)
        settings = rt.PruneSettings(criterion, repair="refit")
        plan, analysis = rt.pruning.prune.plan(bench, Budget(remove=14), settings)
        result = rt.pruning.prune.prune(bench, plan, analysis, settings)
        assert len(result.plan.steps) == 14
        accuracy[criterion] = result.after.accuracy or 0.0
    assert accuracy["spread"] >= accuracy["redtest"] - 0.01

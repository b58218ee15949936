from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import pytest
from criterion_contexts import CPU, MODELS, criterion_context

import redtest_onnx as rt
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.budget import Budget, Losses
from redtest_onnx.pruning.budget import make_plan as plan_by
from redtest_onnx.pruning.criteria.base import SetChoice
from redtest_onnx.pruning.criteria.layer_sets import LayerSets, PricedSet
from redtest_onnx.pruning.criteria.spread import StageSearch, every_other, spread, stages
from redtest_onnx.pruning.prune import plan as make_plan
from redtest_onnx.pruning.prune import rewrite
from redtest_onnx.pruning.set_search import SetSearch

context = partial(criterion_context, fitted=36)


@cache
def choice(name: str) -> LayerSets:
    if name == "resnet":
        return LayerSets([stage_sets(stage) for stage in stages(context(name))])
    return spread(context(name))


@cache
def stage_sets(stage: tuple[Layer, ...]) -> list[PricedSet]:
    subject = context("resnet")
    return StageSearch(subject, stage, set(subject.candidates)).sets()


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


def test_no_stage_pays_more_than_for_every_other_layer() -> None:
    subject = context("resnet")
    found_stages = stages(subject)
    assert len(found_stages) > 1
    for stage in found_stages:
        found = {len(item.layers): item.price for item in stage_sets(stage)}
        even = stage[1::2]
        search = StageSearch(subject, stage, set(subject.candidates))
        assert found[len(even)] <= search.price(even) * (1 + 1e-6)
        assert search.price(even) > 0


def test_the_price_is_below_what_removal_without_a_fit_costs() -> None:
    """The operator in front of a gap takes over part of the work: the point of pricing with a repair."""
    subject = context("resnet")
    stage = max(stages(subject), key=len)
    fitted = StageSearch(subject, stage, set(subject.candidates))
    plain = StageSearch(subject, stage, set(subject.candidates))
    plain._operators = {}
    assert fitted.price(stage[1::2]) < 0.5 * plain.price(stage[1::2])


def test_every_other_takes_nothing_else() -> None:
    subject = context("vgg")
    chains = stages(subject)
    patterns = {frozenset(stage[phase::2]) for stage in chains for phase in (0, 1)}
    sets = every_other(subject).sets
    assert len(sets) > 1
    for item in sets:
        parts = {frozenset(layer for layer in stage if layer in item.layers) for stage in chains}
        assert parts <= patterns | {frozenset()}


def test_the_same_choice_every_time() -> None:
    again = spread(context("vgg"))
    assert [item.key for item in again.sets] == [item.key for item in choice("vgg").sets]


def test_protected_layers_stay_and_all_others_can_go() -> None:
    subject = context("vgg")
    kept = {subject.candidates[1], subject.candidates[-1]}
    sets = spread(replace(subject, allowed=lambda layer: layer not in kept))
    free = [layer for layer in subject.candidates if layer.action == "bypass" and layer not in kept]
    assert removed(sets, len(free)) == [layer.index for layer in free]
    assert all(not kept.intersection(item.layers) for item in sets.sets)


def test_budgets_take_the_cheapest_set_that_meets_them() -> None:
    subject, sets = context("vit"), choice("vit")
    search = SetSearch(subject.bench, "spread", sets)
    total, macs = subject.bench.cost.parameters, subject.bench.cost.macs or 1
    for share in (0.9, 0.7):
        chosen = search.within((("params", share), ("macs", 0.95)))
        saved = sum(item.layer.parameters for item in chosen)
        assert 1 - saved / total <= share
        cheaper = [item for item in sets.sets if item.price < -chosen[0].score]
        assert all(
            1 - item.savings[0] / total > share or 1 - item.savings[1] / macs > 0.95 for item in cheaper
        )
    assert search.within((("size", 0.8), ("memory", 1.0)))
    with pytest.raises(rt.NegativeVerdictError, match=r"params=0\.0001 can't be reached"):
        search.within((("params", 0.0001),))
    with pytest.raises(rt.NegativeVerdictError, match="99 layers can't be removed"):
        search.of_count(99, subject.analysis.layers)


def test_a_latency_target_out_of_reach() -> None:
    search = SetSearch(context("vgg").bench, "spread", choice("vgg"))
    with pytest.raises(rt.NegativeVerdictError, match=r"latency=0\.0001 can't be reached"):
        search.within((("latency", 0.0001),))


def test_a_threshold_takes_the_largest_set_that_costs_no_more() -> None:
    search, sets = SetSearch(context("vgg").bench, "spread", choice("vgg")), choice("vgg")
    prices = [(sets.of_count(count) or [])[0].score for count in range(1, sets.largest + 1)]
    chosen = search.above(prices[2])
    assert len(chosen) >= 3
    assert all(item.score >= prices[2] for item in chosen)
    assert search.above(1.0) == []


def test_a_tolerance_is_bisected_over_counts() -> None:
    sets, tried = choice("resnet"), list[int]()
    search = SetSearch(context("resnet").bench, "spread", sets)

    def loss(plan: rt.Plan) -> float:
        tried.append(len(plan.steps))
        return len(plan.steps) / 100

    every = sets.of_count(sets.largest) or []
    assert len(search.tolerated(every, loss, 0.07, None).steps) == 7
    assert len(tried) <= 7
    assert not search.tolerated(sets.of_count(5) or [], loss, 0.001, None).steps


def test_where_no_set_is_tolerable_the_plan_says_why() -> None:
    plan = plan_by(context("vgg"), Budget(max_drop=0.01), "spread", losses=Losses(lambda plan: 0.5))
    assert not plan.steps
    assert "points are lost" in (plan.reason or "")
    none = plan_by(context("vgg"), Budget(remove=0), "spread")
    assert none.reason == "0 layers were asked for"


def test_sets_of_stages_add_up() -> None:
    a, b, c = context("resnet").candidates[:3]
    empty = PricedSet((), 0.0)
    sets = LayerSets([[empty, PricedSet((a,), 3.0), PricedSet((a, b), 4.0)], [empty, PricedSet((c,), 2.0)]])
    assert next((item.layers, item.price) for item in sets.sets if len(item.layers) == 2) == ((a, b), 4.0)
    assert sets.of_count(3) is not None
    found = sets.least(lambda chosen: len(chosen) > 1)
    assert found is not None
    assert [item.score for item in found] == [-4.0, -4.0]


def test_rivals_take_as_much_of_every_stage() -> None:
    one = context("resnet").candidates[0]
    a, b, c, d = (replace(one, index=k, name=str(k)) for k in range(4))
    small = replace(one, index=4, name="4", parameters=one.parameters - 1)
    empty = PricedSet((), 0.0)
    first = [empty, PricedSet((a,), 3.0), PricedSet((b,), 3.5), PricedSet((a, b), 4.0)]
    second = [empty, PricedSet((small,), 1.0), PricedSet((c,), 2.0), PricedSet((d,), 2.1)]
    sets = LayerSets([first, second])
    found = sets.rivals([a, c], 9)
    assert [[item.layer.name for item in rival] for rival in found] == [["0", "3"], ["1", "2"], ["1", "3"]]
    assert [rival[0].score for rival in found] == [-5.1, -5.5, -5.6]
    assert sets.rivals([a, c], 1) == found[:1]
    assert sets.rivals([a, b], 9) == []
    assert sets.of_count(1) == PricedSet((small,), 1.0).scored()


def test_plans_of_a_budget_are_repaired_like_others() -> None:
    model = rt.load(MODELS / "vgg_digits.onnx")
    data, test = (rt.open_data(MODELS / "digits.npz", model, split=part) for part in ("calibration", "test"))
    bench = rt.Workbench(model, data, CPU, evaluation=test)
    settings = rt.PruneSettings("spread", repair="refit")
    plan, _ = make_plan(bench, Budget(remove=4), settings, analysis=context("vgg").analysis)
    assert plan.criterion == "spread"
    assert len(plan.steps) == 4
    pruned, _ = rewrite(bench, plan, settings)
    assert (bench.evaluator().evaluate(pruned.model).accuracy or 0.0) > 0.98

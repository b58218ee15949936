"""The arbiter takes the plan that is best behind a short refit, and names who made it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

import redtest_onnx as rt
from redtest_onnx.data.dataset import Subset
from redtest_onnx.pruning.best_of import CONTENDERS, RIVALS, best_plan, repaired_error
from redtest_onnx.pruning.budget import Budget, Losses, make_plan
from redtest_onnx.pruning.criteria.base import CriterionContext
from redtest_onnx.pruning.criteria.spread import spread
from redtest_onnx.pruning.curve import trade_off_curve
from redtest_onnx.pruning.prune import PruneSettings
from redtest_onnx.pruning.prune import plan as plan_for
from redtest_onnx.pruning.targets import plan_of
from redtest_onnx.runtime.workbench import Workbench

MODELS = Path(__file__).parents[2] / "models"
CPU = rt.RunOptions(device="cpu", threads=1)


@cache
def context() -> CriterionContext:
    model = rt.load(MODELS / "vgg_digits.onnx")
    data = Subset(rt.open_data(MODELS / "digits.npz", model), np.arange(120))
    analysis = rt.analyze(model, data, rt.AnalysisSettings(samples=32, batches=2), CPU)
    return CriterionContext(Workbench(model, data, CPU).opened, analysis)


def regions(plan: rt.Plan) -> list[str]:
    return [step.region for step in plan.steps]


def test_the_plan_of_least_error_behind_a_refit_is_taken() -> None:
    budget = Budget(remove=4)
    plans = [make_plan(context(), budget, name) for name in CONTENDERS]
    layers = [layer for layer in context().candidates if layer.name in regions(plans[1])]
    sets = spread(context()).rivals(layers, RIVALS)
    assert sets
    plans += [plan_of(context().bench, "spread", rival) for rival in sets]
    assert len({tuple(regions(plan)) for plan in plans}) > 2
    errors = [repaired_error(context().bench, plan) for plan in plans]
    best = plans[int(np.argmin(errors))]
    settings = PruneSettings("best-of", repair="none")
    found, _ = plan_for(context().bench, budget, settings, analysis=context().analysis)
    assert regions(found) == regions(best)
    assert found.criterion == best.criterion


def test_where_a_tolerance_decides_the_smallest_model_is_taken() -> None:
    def loss(plan: rt.Plan) -> float:
        return len(plan.steps) / 100

    budget = Budget(max_drop=0.03)
    found = best_plan(context(), budget, losses=Losses(loss))
    plans = [make_plan(context(), budget, name, losses=Losses(loss)) for name in CONTENDERS]
    assert sum(step.parameters for step in found.steps) == max(
        sum(step.parameters for step in plan.steps) for plan in plans
    )


def test_contenders_that_cannot_reach_a_budget_are_left_out() -> None:
    count = sum(layer.action == "bypass" for layer in context().candidates)
    with pytest.raises(rt.NegativeVerdictError):
        make_plan(context(), Budget(remove=count), "every-other")
    assert len(best_plan(context(), Budget(remove=count)).steps) == count
    with pytest.raises(rt.NegativeVerdictError, match="99 layers can't be removed"):
        best_plan(context(), Budget(remove=99))


def test_a_curve_takes_the_cheapest_set_of_every_size() -> None:
    subject = context()
    curve = trade_off_curve(
        subject.bench, PruneSettings("spread", repair="none"), analysis=subject.analysis, points=2
    )
    sets = spread(subject)
    assert len(curve.points) == 2
    for point in curve.points:
        chosen = {item.layer.name for item in sets.of_count(point.removed) or []}
        assert set(regions(point.pruning.plan)) == chosen

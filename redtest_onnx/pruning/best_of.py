"""An arbiter: plans of several criteria for one budget, each repaired shortly, and the best of them."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np

from redtest_onnx.errors import InputError, NegativeVerdictError
from redtest_onnx.graph.model import first_line
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.budget import Budget, Losses, make_plan, protected_by
from redtest_onnx.pruning.criteria.base import CriterionContext
from redtest_onnx.pruning.criteria.spread import spread
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.repair.distilled import REFIT_ROUNDS, REFIT_SAMPLES
from redtest_onnx.pruning.repair.fit import FitSettings, fit_to_original
from redtest_onnx.pruning.repair.refit import Effort
from redtest_onnx.pruning.targets import plan_of
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Progress

log = logging.getLogger(__name__)

BEST_OF = "best-of"
CONTENDERS = ("redtest", "spread", "every-other")
"""The criteria whose plans are compared; of equal ones the first is taken."""
RIVALS = 3
"""Further sets of `spread` that are compared: its prices are found on too few samples to tell them apart."""


class Planner(Protocol):
    """What chooses layers for a budget: `best_plan`, or `make_plan` with a criterion."""

    def __call__(
        self,
        context: CriterionContext,
        budget: Budget,
        *,
        losses: Losses | None = None,
        progress: Progress | None = None,
    ) -> Plan:
        """A plan, see `make_plan`."""


def planner(criterion: str) -> Planner:
    """What chooses by a criterion: `best_plan` for `BEST_OF`, else `make_plan`."""
    return best_plan if criterion == BEST_OF else partial(make_plan, criterion=criterion)


def best_plan(
    context: CriterionContext,
    budget: Budget,
    *,
    losses: Losses | None = None,
    progress: Progress | None = None,
) -> Plan:
    """The best of the plans that `CONTENDERS` make for a budget, which names the criterion that made it.

    Where a tolerated loss decides how much goes, that with the fewest parameters left; else that whose
    outputs come nearest to the original's behind a short refit, on samples that it was not fitted to. Prices
    of sets are found on too few samples to tell good sets from one another, which this does: so it also looks
    at `RIVALS` further sets of `spread` that take as much from every stage.

    Args:
        context: the model, its layers and their similarity.
        budget: what limits the choice.
        losses: what plans lose; needed where `budget.max_drop` decides.
        progress: called as work is done.

    Raises:
        InputError: see `make_plan`.
        NegativeVerdictError: no contender reaches the budget.
    """
    plans: dict[frozenset[str], Plan] = {}
    refused: list[NegativeVerdictError] = []
    spread_plan: Plan | None = None
    for name in CONTENDERS:
        try:
            plan = make_plan(context, budget, name, losses=losses, progress=progress)
        except NegativeVerdictError as error:
            refused.append(error)
            continue
        plans.setdefault(_regions(plan), plan)
        spread_plan = plan if name == "spread" else spread_plan
    if not plans:
        raise refused[0]
    found = list(plans.values())
    if losses is not None and budget.max_drop is not None:
        return max(found, key=lambda plan: sum(step.parameters for step in plan.steps))
    if context.bench.data.synthetic:
        return found[0]
    if spread_plan is not None:
        found += [plan for plan in _rivals(context, budget, spread_plan) if _regions(plan) not in plans]
    if len(found) == 1:
        return found[0]
    errors = []
    for done, plan in enumerate(found):
        errors.append(repaired_error(context.bench, plan))
        log.info("%s: relative squared error %.4g behind a short refit", plan.criterion, errors[-1])
        if progress:
            progress(done + 1, len(found), "comparing plans behind a short refit")
    return found[int(np.argmin(errors))]


def _regions(plan: Plan) -> frozenset[str]:
    return frozenset(step.region for step in plan.steps)


def _rivals(context: CriterionContext, budget: Budget, chosen: Plan) -> list[Plan]:
    """Sets nearly as cheap as the one that `spread` takes, which meet a budget because that one does."""
    if any(quantity not in ("params", "macs") for quantity, _ in budget.targets):
        return []
    protected, asked = protected_by(context.analysis.layers, budget.protect), context.allowed
    own = replace(context, allowed=lambda layer: asked(layer) and protected(layer))
    layers = [layer for layer in own.candidates if layer.name in _regions(chosen)]
    return [plan_of(own.bench, chosen.criterion, rival) for rival in spread(own).rivals(layers, RIVALS)]


def repaired_error(bench: Workbench, plan: Plan) -> float:
    """Squared relative distance of the outputs from the original's on held-out samples, behind a short refit.

    Infinite where the model can't be fitted.

    Args:
        bench: the original, with its branches inlined, and calibration samples.
        plan: what is taken out.
    """
    fits = FitSettings("refit", bench.splits.fit[:REFIT_SAMPLES], effort=Effort(REFIT_ROUNDS))
    try:
        model, _ = fit_to_original(bench, apply_plan(bench, plan), plan, fits)
        effect = bench.evaluator(bench.splits.choose).evaluate(model).agreement.relative_l2
    except (InputError, np.linalg.LinAlgError) as error:
        log.info("plan of %s is left out: %s", plan.criterion, first_line(error))
        return float("inf")
    return effect**2 if np.isfinite(effect) else float("inf")

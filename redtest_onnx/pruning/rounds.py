"""Prune in rounds, with fine-tuning after each: remove, repair, train, measure again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from redtest_onnx.data.dataset import Dataset
from redtest_onnx.data.splits import without_holdout
from redtest_onnx.errors import InputError
from redtest_onnx.pruning.budget import Budget
from redtest_onnx.pruning.limits import Limits
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.prune import PruneSettings, Pruning, compare, plan, rewrite
from redtest_onnx.pruning.repair.repair import Repair
from redtest_onnx.pruning.targets import Quantity, Targets
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis
from redtest_onnx.training.finetune import FineTuning, finetune
from redtest_onnx.training.loop import Watch
from redtest_onnx.training.settings import TrainingSettings


@dataclass(frozen=True)
class Round:
    """One round.

    Attributes:
        plan: what it removed.
        repair: what was done without training.
        finetuning: what training brought; its `model` is what the next round starts from.
    """

    plan: Plan
    repair: Repair
    finetuning: FineTuning


@dataclass(frozen=True)
class RoundTraining:
    """How each round trains.

    Attributes:
        settings: of each training.
        data: training samples; those of the workbench that judge no candidate if None.
        watch: who is told what happens.
    """

    settings: TrainingSettings
    data: Dataset | None = None
    watch: Watch = field(default_factory=Watch)


def prune_in_rounds(
    bench: Workbench,
    budgets: Sequence[Budget],
    training: RoundTraining,
    settings: PruneSettings | None = None,
    *,
    first: tuple[Plan, Analysis] | None = None,
) -> tuple[Pruning, tuple[Round, ...]]:
    """Prune and fine-tune, once per budget.

    The original teaches in all rounds, beside the labels if there are any.

    Args:
        bench: the original and calibration samples.
        budgets: what may go in each round, as a part of what is left then; see `Budget.rounds`.
        training: how each round trains.
        settings: in which order layers go, and how to repair before training.
        first: plan and analysis of the first round, if they are known.

    Returns:
        The last model beside the original, and the rounds that removed something.

    Raises:
        InputError: see `plan` and `finetune`.
        NegativeVerdictError: a target can't be reached or is missed, or training diverged.
    """
    settings, progress = settings or PruneSettings(), training.watch.progress
    settings = replace(settings, distil=replace(settings.distil, unasked_macs=0.0))  # training follows anyway
    samples = training.data if training.data is not None else without_holdout(bench.data, bench.seed)
    rounds: list[Round] = []
    current, original = bench, None
    removed: list[Step] = []
    for number, budget in enumerate(budgets):
        limits = Limits(bench, _shares_so_far(budgets[: number + 1]))
        if number == 0 and first is not None:
            chosen, analysis = first
        else:
            now = replace(budget, targets=_still(limits, current))
            chosen, analysis = plan(current, now, settings, progress=progress)
        original = original or analysis
        if not chosen.steps and rounds:
            continue
        pruned, repaired = rewrite(current, chosen, settings, limits=limits, progress=progress)
        removed.extend(chosen.steps)
        limits.require(pruned, removed)
        trained_on = Workbench(pruned.model, samples, bench.options, seed=bench.seed)
        tuned = finetune(trained_on, training.settings, teacher=bench.model, watch=training.watch)
        current = bench.successor(tuned.model)
        rounds.append(Round(chosen, repaired, tuned))
    if original is None:
        raise InputError("a number of rounds must be at least 1")
    everything = replace(rounds[0].plan, steps=tuple(step for part in rounds for step in part.plan.steps))
    pruning = compare(bench, current, everything, original, rounds[-1].repair, progress=progress)
    return pruning, tuple(rounds)


def _shares_so_far(budgets: Sequence[Budget]) -> Targets:
    """The share of each quantity of the original that may stay after these rounds."""
    shares: dict[Quantity, float] = {}
    for budget in budgets:
        for quantity, share in budget.targets:
            shares[quantity] = shares.get(quantity, 1.0) * share
    return tuple(shares.items())


def _still(limits: Limits, current: Workbench) -> Targets:
    """The same as shares of what is left now, with what repairs added."""
    return tuple((what, min(share / limits.left(what, current), 1.0)) for what, share in limits.targets)

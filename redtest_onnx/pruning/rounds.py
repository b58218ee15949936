"""Prune in rounds, with fine-tuning after each: remove, repair, train, measure again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from redtest_onnx.data.dataset import Dataset
from redtest_onnx.data.splits import without_holdout
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning.budget import Budget
from redtest_onnx.pruning.limits import Limits
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.prune import Pruning, compare, plan, rewrite
from redtest_onnx.pruning.repair.repair import Method, Repair
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.similarity.analyze import Analysis, AnalysisSettings, Progress
from redtest_onnx.training.finetune import FineTuning, finetune
from redtest_onnx.training.loop import Report
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


def prune_in_rounds(
    model: Model,
    data: Dataset,
    budgets: Sequence[Budget],
    training: TrainingSettings,
    *,
    train_on: Dataset | None = None,
    evaluation: Dataset | None = None,
    criterion: str = "redtest",
    settings: AnalysisSettings | None = None,
    method: Method = "auto",
    kernel: int = 1,
    first: tuple[Plan, Analysis] | None = None,
    options: RunOptions | None = None,
    report: Report | None = None,
    progress: Progress | None = None,
) -> tuple[Pruning, tuple[Round, ...]]:
    """Prune and fine-tune, once per budget.

    The original teaches in all rounds, beside the labels if there are any.

    Args:
        model: the original.
        data: calibration samples.
        budgets: what may go in each round, as a part of what is left then; see `Budget.rounds`.
        training: how each round trains.
        train_on: training samples; those of `data` that judge no candidate if absent.
        evaluation: samples for the last comparison, on which nothing is trained.
        criterion: in which order layers go.
        settings: how similarity is measured.
        method: how to repair before training.
        kernel: size of the convolutions of fitted adapters.
        first: plan and analysis of the first round, if they are known.
        options: device and threads.
        report: called with the record of each epoch.
        progress: called as work is done.

    Returns:
        The last model beside the original, and the rounds that removed something.

    Raises:
        InputError: see `plan` and `finetune`.
        NegativeVerdictError: a target can't be reached, or training diverged.
    """
    seed = (settings or AnalysisSettings()).seed
    train_on = train_on if train_on is not None else without_holdout(data, seed)
    rounds: list[Round] = []
    current, original = model, None
    removed: list[Step] = []
    for number, budget in enumerate(budgets):
        limits = Limits(model, data, options or RunOptions(), _shares_so_far(budgets[: number + 1]))
        if number == 0 and first is not None:
            chosen, analysis = first
        else:
            chosen, analysis = plan(
                current,
                data,
                replace(budget, targets=_still(limits, current)),
                criterion=criterion,
                settings=settings,
                method=method,
                options=options,
                progress=progress,
            )
        original = original or analysis
        if not chosen.steps and rounds:
            continue
        pruned, repaired = rewrite(
            *(current, data, chosen, analysis, limits),
            method=method,
            kernel=kernel,
            options=options,
            progress=progress,
        )
        removed.extend(chosen.steps)
        limits.require(pruned, removed)
        tuned = finetune(
            pruned, train_on, training, teacher=model, options=options, report=report, progress=progress
        )
        current = tuned.model
        rounds.append(Round(chosen, repaired, tuned))
    if original is None:
        raise InputError("a number of rounds must be at least 1")
    everything = replace(rounds[0].plan, steps=tuple(step for part in rounds for step in part.plan.steps))
    pruning = compare(
        model,
        current,
        data,
        everything,
        original,
        rounds[-1].repair,
        evaluation=evaluation,
        options=options,
        progress=progress,
    )
    return pruning, tuple(rounds)


def _shares_so_far(budgets: Sequence[Budget]) -> tuple[tuple[str, float], ...]:
    """The share of each quantity of the original that may stay after these rounds."""
    shares: dict[str, float] = {}
    for budget in budgets:
        for quantity, share in budget.targets:
            shares[quantity] = shares.get(quantity, 1.0) * share
    return tuple(shares.items())


def _still(limits: Limits, current: Model) -> tuple[tuple[str, float], ...]:
    """The same as shares of what is left now, with what repairs added."""
    return tuple((what, min(share / limits.left(what, current), 1.0)) for what, share in limits.targets)

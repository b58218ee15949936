"""Repair a pruned model without training, and only where that helps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from redtest_onnx.analysis import Progress
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning.budget import drop
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.refit import Refit, refit
from redtest_onnx.runtime.batching import Indices
from redtest_onnx.runtime.data import Dataset
from redtest_onnx.runtime.evaluate import Evaluator
from redtest_onnx.runtime.session import RunOptions

Method = Literal["none", "refit", "auto"]


@dataclass(frozen=True)
class Repair:
    """What was done to a pruned model.

    Attributes:
        method: what was kept: "none" for plain removal, or "refit".
        refits: operators that were solved again.
        fitted_on: number of samples they were fitted to.
        held_out: number of other samples that judged the result.
        loss_plain: loss of accuracy or agreement by plain removal on the held-out samples.
        loss: loss of what was kept, on the same.
        reason: why nothing was repaired, if nothing was.
    """

    method: str
    refits: tuple[Refit, ...] = ()
    fitted_on: int = 0
    held_out: int = 0
    loss_plain: float | None = None
    loss: float | None = None
    reason: str | None = None


def repair(
    original: Model,
    pruned: Model,
    plan: Plan,
    data: Dataset,
    *,
    fit: Indices,
    held_out: Indices,
    method: Method,
    options: RunOptions,
    progress: Progress | None = None,
) -> tuple[Model, Repair]:
    """Refit what is left of a pruned model.

    Args:
        original: the model before.
        pruned: the model without the plan's layers.
        plan: what was taken out.
        data: calibration samples.
        fit: samples to fit to.
        held_out: other samples, which judge.
        method: "none", "refit", or "auto", which keeps the plain removal where a refit is no better.
        options: device and threads.
        progress: called as work is done.

    Returns:
        The model to keep and what was done.
    """
    if method == "none" or not plan.steps:
        return pruned, Repair("none", reason="not asked for" if method == "none" else "nothing was removed")
    if method == "auto" and data.synthetic:
        return pruned, Repair("none", reason="made-up inputs tell nothing about the data the model works on")
    judge = Evaluator(original, data, held_out, options)
    plain = judge.evaluate(pruned)
    fitted, refits = refit(original, pruned, plan, data, fit, options, progress=progress)
    result = judge.evaluate(fitted)
    losses = drop(judge.reference, plain), drop(judge.reference, result)
    better = (losses[1], result.agreement.relative_l2) < (losses[0], plain.agreement.relative_l2)
    if method == "auto" and not better:
        reason = "a refit was no better on held-out samples"
        return pruned, Repair("none", refits, len(fit), len(held_out), losses[0], losses[0], reason)
    return fitted, Repair("refit", refits, len(fit), len(held_out), *losses)

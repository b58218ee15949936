"""Repair a pruned model without training, and only where that helps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Literal, get_args

import numpy as np

from redtest_onnx.checks import Share, check_settings
from redtest_onnx.data.batching import Indices
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model, first_line
from redtest_onnx.pruning.apply import AdapterInsertion, apply_with_adapters
from redtest_onnx.pruning.budget import drop
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.repair.distilled import (
    REFIT_ROUNDS,
    REFIT_SAMPLES,
    TrainingOffer,
    UnlabelledTraining,
    distilled,
    require_training,
    training_offer,
)
from redtest_onnx.pruning.repair.equations import SEARCHING_ROWS
from redtest_onnx.pruning.repair.known import KnownValues
from redtest_onnx.pruning.repair.refit import Effort, Refit, refit
from redtest_onnx.pruning.repair.reinit import reinitialised
from redtest_onnx.pruning.repair.shards import FitShards, refit_over_shards
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Progress
from redtest_onnx.training.distil.settings import DistilSettings

log = logging.getLogger(__name__)

Method = Literal["none", "adapter", "refit", "distil", "reinit", "auto"]
Fitted = Literal["adapter", "refit", "distil"]
METHODS: tuple[Method, ...] = get_args(Method)
_TRIED_ON = 256  # samples, enough to tell a good plan from a bad one


@dataclass(frozen=True)
class Repair:
    """What was done to a pruned model.

    Attributes:
        method: what was kept: "none" for plain removal, "adapter", "refit", or "distil" for a refit with
            training behind it.
        refits: operators that were refitted.
        fitted_on: number of samples they were fitted to.
        held_out: number of other samples that judged the result.
        loss_plain: loss of accuracy or agreement by plain removal on the held-out samples.
        loss: loss of what was kept, on the same.
        reason: why nothing was repaired, if nothing was.
        training: what was done behind the refit without labels, whether it was kept or not; None without it.
        offer: training that "auto" left to the user where the refit loses something; None where it didn't.
        redrawn: operators that "reinit" resized and drew anew.
    """

    method: str
    refits: tuple[Refit, ...] = ()
    fitted_on: int = 0
    held_out: int = 0
    loss_plain: float | None = None
    loss: float | None = None
    reason: str | None = None
    training: UnlabelledTraining | None = None
    offer: TrainingOffer | None = None
    redrawn: tuple[str, ...] = ()


@dataclass(frozen=True)
class RepairSettings:
    """How a pruned model is repaired.

    Attributes:
        method: see `repair`.
        kernel: size of the convolutions of fitted adapters.
        distil: how "distil" trains.
        shards: samples that "refit" is fitted to, summed by many workers; those of the bench if None.
        max_drop: largest loss on held-out samples behind a `short_fit`, where one was found to keep to it.
    """

    method: Method = "auto"
    kernel: Literal[1, 3] = 1
    distil: DistilSettings = field(default_factory=DistilSettings)
    shards: FitShards | None = None
    max_drop: Share | None = None

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, eq=False)
class FitSettings:
    """How one repair is fitted.

    Attributes:
        method: "refit" or "adapter", see `repair`; "distil" is fitted as "refit" is.
        fit: the samples to fit to.
        kernel: size of the convolutions of fitted adapters.
        effort: how much is done for it; with adapters no two operators are solved together.
    """

    method: Fitted
    fit: Indices
    kernel: int = 1
    effort: Effort = field(default_factory=Effort)


def short_fit(method: Method, fit: Indices, known: KnownValues | None = None) -> FitSettings:
    """The fit that plans are tried with: of few samples, and far fewer rows than a last one.

    Args:
        method: how the result will be repaired.
        fit: samples, of which the first are taken.
        known: what other fits to them have found.
    """
    effort = Effort(1, SEARCHING_ROWS, known, diagnose=False)
    return FitSettings("adapter" if method == "adapter" else "refit", fit[:_TRIED_ON], effort=effort)


def repair(
    bench: Workbench,
    pruned: Model,
    plan: Plan,
    settings: RepairSettings,
    *,
    allows: Callable[[Workbench], bool] = lambda candidate: True,
    progress: Progress | None = None,
) -> tuple[Workbench, Repair]:
    """Fit what is left of a pruned model to what the original computes.

    Args:
        bench: the model before, with its branches inlined, and calibration samples, whose labels judge but
            are not fitted to.
        pruned: the model without the plan's layers.
        plan: what was taken out.
        settings: the method: "none"; "adapter", which puts a fitted linear operator into each gap and solves
            those behind once more; "refit", which solves the remaining operators again, pairs of them
            jointly; "distil", which trains without labels behind a short refit, and gives the better refit in
            its place where held-out samples agree no more; "reinit", RedTest's own,
            which resizes what reads a layer of another shape and draws it anew, to be trained afterwards;
            "auto", which keeps that of the first three which loses least on them, and trains behind a refit
            that loses more than chance explains, if PyTorch is there and either `distil.seconds` or
            `distil.unasked_macs` bounds that.
        allows: whether a repaired model is small enough to be kept.
        progress: called as work is done.

    Returns:
        The workbench of the model to keep, and what was done. A repair that fails, or whose result is too
        large, is left out.
    """
    method = settings.method
    unrepaired = bench.successor(pruned)
    if method == "none" or plan.empty:
        reason = "not asked for" if method == "none" else "nothing was removed"
        return unrepaired, Repair("none", reason=reason)
    if method == "reinit":
        return _redrawn(bench, unrepaired, plan)
    if method == "auto" and bench.data.synthetic:
        reason = "synthetic inputs tell nothing about the data the model works on"
        return unrepaired, Repair("none", reason=reason)
    fit, held_out = bench.splits.fit, bench.splits.choose
    judge = bench.evaluator(held_out)

    def judged(candidate: Workbench) -> tuple[float, float]:
        # Its session is kept for the checks that follow, unless others than the outputs are judged.
        result = judge.evaluate(candidate.model if judge.reads_inside else candidate.session())
        return drop(judge.reference, result), result.agreement.relative_l2

    plain = judged(unrepaired)
    unrepaired.close()
    sizes = len(fit), len(held_out)
    # Those that add no parameters come first and win where the samples can't tell them apart.
    names: tuple[Fitted, ...] = ("refit", "adapter") if method == "auto" else (method,)
    if method == "distil":
        require_training()
    tried: list[tuple[tuple[float, float], Fitted, Workbench, tuple[Refit, ...]]] = []
    failed: list[str] = []
    offer, training, spread = None, None, 0
    for name in names:
        if tried and tried[0][0][0] < _standard_error(tried[0][0][0], sizes[1]):
            break  # nothing could be told to be better
        try:
            fits = FitSettings(name, fit, settings.kernel)
            if name == "distil":
                fits = replace(fits, fit=fit[:REFIT_SAMPLES], effort=Effort(REFIT_ROUNDS))
            if name == "refit" and settings.shards is not None:
                model, refits, spread = refit_over_shards(
                    bench, pruned, plan, settings.shards, progress=progress
                )
            else:
                model, refits = fit_to_original(bench, pruned, plan, fits, progress)
            fitted = bench.successor(model)
            if not allows(fitted):
                failed.append(f"with {name} the result would be larger than it may be")
                continue
            loss = judged(fitted)
            tried.append((loss, name, fitted, refits))
        except (InputError, np.linalg.LinAlgError) as error:
            if name == "refit" and settings.shards is not None and isinstance(error, InputError):
                raise  # of a file that was named for this fit
            # The plain removal is still there: a repair that can't be made ends nothing.
            log.warning("repair by %s is left out: %s", name, first_line(error))
            failed.append(f"{name} failed: {first_line(error)}")
            continue
        if method == "auto" and name == "refit" and loss[0] >= 2 * _standard_error(loss[0], sizes[1]):
            offer = training_offer(bench, fitted, settings.distil)
            if not offer.accepted:
                continue
            offer, found = None, Repair("refit", refits, *sizes, plain[0], loss[0])
            try:
                fitted, found = _trained((bench, fitted), found, loss, judged, settings.distil, progress)
            except InputError as error:
                log.warning("training without labels is left out: %s", first_line(error))
            if found.method == "distil":
                return fitted, found
            training = found.training
    if tried and method != "distil" and settings.max_drop is not None and tried[0][0][0] > settings.max_drop:
        # A last fit may lose more on held-out samples than the short one that the plan was chosen by.
        short = short_fit(method, fit)
        model, refits = fit_to_original(bench, pruned, plan, short, progress)
        loss = judged(fitted := bench.successor(model))
        if loss[0] <= settings.max_drop and allows(fitted):
            return fitted, Repair(short.method, refits, len(short.fit), sizes[1], plain[0], loss[0])
    if not tried:
        return unrepaired, Repair("none", (), *sizes, plain[0], plain[0], "; ".join(failed))
    loss, name, kept, refits = tried[0]
    for other in tried[1:]:
        if other[0][0] + _standard_error(loss[0], sizes[1]) < loss[0]:
            loss, name, kept, refits = other
    if method == "auto" and not loss < plain:
        reason = "no repair was better on held-out samples"
        return unrepaired, Repair("none", refits, *sizes, plain[0], plain[0], reason, training, offer)
    if name != "distil":
        fitted_on = spread if name == "refit" and spread else len(fit)
        return kept, Repair(name, refits, fitted_on, sizes[1], plain[0], loss[0], None, training, offer)
    found = Repair("refit", refits, min(len(fit), REFIT_SAMPLES), sizes[1], plain[0], loss[0])
    kept, found = _trained((bench, kept), found, loss, judged, settings.distil, progress)
    if found.method == "distil":
        return kept, found
    # What the user gets in its place is not the short refit that the training began with.
    model, refits = fit_to_original(bench, pruned, plan, FitSettings("refit", fit), progress)
    fitted = bench.successor(model)
    whole = judged(fitted) if allows(fitted) else (float("inf"), float("inf"))
    if not whole < loss:
        return kept, found
    return fitted, replace(found, refits=refits, fitted_on=len(fit), loss=whole[0])


def _trained(
    sides: tuple[Workbench, Workbench],
    refitted: Repair,
    loss: tuple[float, float],
    judged: Callable[[Workbench], tuple[float, float]],
    settings: DistilSettings,
    progress: Progress | None,
) -> tuple[Workbench, Repair]:
    """A refitted model with training behind it, or as it was where held-out samples agree no more."""
    bench, kept = sides
    model, training = distilled(bench, kept.model, settings, progress)
    trained = bench.successor(model)
    found, after = replace(refitted, training=training), judged(trained)
    return (trained, replace(found, method="distil", loss=after[0])) if after < loss else (kept, found)


def _redrawn(bench: Workbench, unrepaired: Workbench, plan: Plan) -> tuple[Workbench, Repair]:
    """The model with operators drawn anew, and what held-out samples say before any training."""
    model, names = reinitialised(bench, plan)
    if not names:
        reason = "the shapes fit without the removed layers, so that nothing had to be drawn anew"
        return unrepaired, Repair("none", reason=reason)
    kept, judge = bench.successor(model), bench.evaluator(bench.splits.choose)
    loss = drop(judge.reference, judge.evaluate(model))
    return kept, Repair("reinit", held_out=len(bench.splits.choose), loss=loss, redrawn=names)


def _standard_error(loss: float, samples: int) -> float:
    """Of a share seen on so many samples; not below what one of them makes."""
    share = min(max(loss, 0.0), 1.0)
    return max(sqrt(share * (1 - share) / max(samples, 1)), 1 / max(samples, 1))


def fit_to_original(
    bench: Workbench, pruned: Model, plan: Plan, settings: FitSettings, progress: Progress | None = None
) -> tuple[Model, tuple[Refit, ...]]:
    """One repair, whether it helps or not.

    Args:
        bench: as in `repair`.
        pruned: the model without the plan's layers.
        plan: what was taken out.
        settings: what is fitted, and to which samples.
        progress: called after each operator.
    """
    adapters = settings.method == "adapter"
    gaps = apply_with_adapters(bench, plan, settings.kernel) if adapters else AdapterInsertion(pruned)
    effort = replace(settings.effort, rounds=0) if adapters else settings.effort
    return refit(bench, gaps, plan, settings.fit, effort=effort, progress=progress)

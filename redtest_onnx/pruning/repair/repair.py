"""Repair a pruned model without training, and only where that helps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import isfinite, sqrt
from typing import Literal

import numpy as np

from redtest_onnx.checks import Share, check_settings
from redtest_onnx.errors import InputError, RuntimeUnavailableError
from redtest_onnx.graph.model import Model, first_line
from redtest_onnx.pruning.budget import drop
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.repair.distilled import (
    REFIT_ROUNDS,
    REFIT_SAMPLES,
    TrainingOffer,
    UnlabelledTraining,
    distilled,
    require_trainable,
    training_offer,
)
from redtest_onnx.pruning.repair.fit import FitSettings, Fitted, Method, fit_to_original, short_fit
from redtest_onnx.pruning.repair.refit import Effort, Refit
from redtest_onnx.pruning.repair.reinit import reinitialised
from redtest_onnx.pruning.repair.shards import FitShards, refit_over_shards
from redtest_onnx.pruning.repair.working_model import shared_operators
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Progress
from redtest_onnx.training.distil.settings import DistilSettings

log = logging.getLogger(__name__)


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
        difference_plain: relative L2 error of the outputs by plain removal on the held-out samples; None
            without outputs of numbers.
        difference: of what was kept, on the same.
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
    difference_plain: float | None = None
    difference: float | None = None


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
    if method == "none" or plan.empty:
        reason = "not asked for" if method == "none" else "nothing was removed"
        return bench.successor(pruned), Repair("none", reason=reason)
    if method == "reinit":
        return _redrawn(bench, pruned, plan)
    if method == "auto" and bench.data.synthetic:
        reason = "synthetic inputs tell nothing about the data the model works on"
        return bench.successor(pruned), Repair("none", reason=reason)
    if method == "distil":
        require_trainable(pruned)
    repairs = _Repairs(bench, pruned, plan, settings, allows, progress)
    return repairs.within_limit(*(repairs.distilled() if method == "distil" else repairs.best()))


@dataclass(frozen=True, eq=False)
class _Attempt:
    """A repair that was made.

    Attributes:
        method: by which method.
        model: the repaired model.
        refits: what was done to each operator.
        fitted_on: number of samples.
        loss: of accuracy or agreement on held-out samples; the error of the outputs decides between equals.
    """

    method: Fitted
    model: Workbench
    refits: tuple[Refit, ...]
    fitted_on: int
    loss: tuple[float, float]


class _Repairs:
    """Repairs of one pruned model, judged on the same held-out samples; arguments as of `repair`."""

    def __init__(
        self,
        bench: Workbench,
        pruned: Model,
        plan: Plan,
        settings: RepairSettings,
        allows: Callable[[Workbench], bool],
        progress: Progress | None,
    ) -> None:
        self._bench, self._pruned, self._plan = bench, pruned, plan
        self._settings, self._allows, self._progress = settings, allows, progress
        self._fit, self._held_out = bench.splits.fit, len(bench.splits.choose)
        self._judge = bench.evaluator(bench.splits.choose)
        self._failed: list[str] = []
        self._unrepaired = bench.successor(pruned)
        self._plain = self._judged(self._unrepaired)
        self._unrepaired.close()

    def best(self) -> tuple[Workbench, Repair]:
        """The repair that was asked for; of all with "auto", or the plain removal if that loses least."""
        asked = self._settings.method
        # Those that add no parameters come first and win where the samples can't tell them apart.
        names: tuple[Fitted, ...] = ("refit", "adapter")
        tried: list[_Attempt] = []
        offered = Repair("none")
        for name in (name for name in names if asked in (name, "auto")):
            if tried and tried[0].loss[0] < self._error_of(tried[0]):
                break  # nothing could be told to be better
            attempt = self._attempt(name)
            if attempt is None:
                continue
            tried.append(attempt)
            if asked == "auto" and name == "refit" and attempt.loss[0] >= 2 * self._error_of(attempt):
                trained, offered = self._trained_unasked(attempt)
                if offered.method == "distil":
                    return trained, offered
        if not tried:
            return self._nothing("; ".join(self._failed))
        chosen = tried[0]
        for other in tried[1:]:
            if other.loss[0] + self._error_of(chosen) < chosen.loss[0]:
                chosen = other
        model, found = chosen.model, self._described(chosen)
        if asked == "auto" and not self._beats_plain(chosen):
            model, found = self._nothing("no repair was better on held-out samples")
        return model, replace(found, training=offered.training, offer=offered.offer)

    def within_limit(self, model: Workbench, found: Repair) -> tuple[Workbench, Repair]:
        """The short fit that the plan was chosen by, where what the last fits came to loses too much."""
        limit = self._settings.max_drop
        if limit is None or found.loss is None or found.loss <= limit:
            return model, found
        fits = short_fit(self._settings.method, self._fit)
        short = self._attempt(fits.method, fits)
        if short is None or short.loss[0] > limit:
            return model, found
        return short.model, replace(self._described(short), training=found.training, offer=found.offer)

    def distilled(self) -> tuple[Workbench, Repair]:
        """A short refit with training behind it, or the better refit where held-out samples agree no more."""
        effort = Effort(REFIT_ROUNDS)
        fits = FitSettings("distil", self._fit[:REFIT_SAMPLES], self._settings.kernel, effort)
        short = self._attempt("distil", fits)
        if short is None:
            return self._nothing("; ".join(self._failed))
        model, found = self._trained(short)
        if found.method == "distil":
            return model, found
        # What the user gets in its place is not the short refit that the training began with.
        whole = self._attempt("refit")
        if whole is None or not whole.loss < short.loss:
            return model, found
        return whole.model, replace(self._described(whole), training=found.training)

    def _judged(self, candidate: Workbench) -> tuple[float, float]:
        # Its session is kept for the checks that follow, unless others than the outputs are judged.
        result = self._judge.evaluate(candidate.model if self._judge.reads_inside else candidate.session())
        return drop(self._judge.reference, result), result.agreement.relative_l2

    def _beats_plain(self, attempt: _Attempt) -> bool:
        """Whether it loses less than plain removal; by the outputs where the samples can't tell."""
        gained = self._plain[0] - attempt.loss[0]
        if abs(gained) < _standard_error(self._plain[0], self._held_out):
            return attempt.loss[1] < self._plain[1]
        return gained > 0

    def _error_of(self, attempt: _Attempt) -> float:
        return _standard_error(attempt.loss[0], self._held_out)

    def _attempt(self, name: Fitted, fits: FitSettings | None = None) -> _Attempt | None:
        """One repair; None, with the reason noted, if it fails or its result is too large."""
        fits = fits or FitSettings(name, self._fit, self._settings.kernel)
        spread = self._settings.shards if name == "refit" and fits.fit is self._fit else None
        try:
            model, refits, count = self._made(fits, spread)
            allowed = self._allows(model)
            if not allowed and spread is None and shared_operators(self._pruned):
                # They got weights of their own; if they stay as they are, it may be small enough.
                fits = replace(fits, effort=replace(fits.effort, untie=False))
                model, refits, count = self._made(fits)
                allowed = self._allows(model)
            if allowed:
                return _Attempt(name, model, refits, count, self._judged(model))
        except (InputError, np.linalg.LinAlgError) as error:
            if spread is not None and isinstance(error, InputError):
                raise  # of a file that was named for this fit
            # The plain removal is still there: a repair that can't be made ends nothing.
            log.warning("repair by %s is left out: %s", name, first_line(error))
            self._failed.append(f"{name} failed: {first_line(error)}")
            return None
        self._failed.append(f"with {name} the result would be larger than it may be")
        return None

    def _made(
        self, fits: FitSettings, shards: FitShards | None = None
    ) -> tuple[Workbench, tuple[Refit, ...], int]:
        """A repaired model, what was done to each operator, and the number of samples."""
        what = self._bench, self._pruned, self._plan
        if shards is not None:
            model, refits, count = refit_over_shards(*what, shards, progress=self._progress)
        else:
            model, refits = fit_to_original(*what, fits, self._progress)
            count = len(fits.fit)
        return self._bench.successor(model), refits, count

    def _trained_unasked(self, refitted: _Attempt) -> tuple[Workbench, Repair]:
        """Training behind a refit where that is short enough, and was worth it; else what it would take."""
        found = self._described(refitted)
        offer = training_offer(self._bench, refitted.model, self._settings.distil)
        if not offer.accepted:
            return refitted.model, replace(found, offer=offer)
        try:
            return self._trained(refitted)
        except (InputError, RuntimeUnavailableError) as error:
            log.warning("training without labels is left out: %s", first_line(error))
            return refitted.model, found

    def _trained(self, refitted: _Attempt) -> tuple[Workbench, Repair]:
        """A refitted model with training behind it, or as it was where held-out samples agree no more."""
        model, training = distilled(self._bench, refitted.model.model, self._settings.distil, self._progress)
        trained = self._bench.successor(model)
        found, after = replace(self._described(refitted), training=training), self._judged(trained)
        if not after < refitted.loss:
            return refitted.model, found
        return trained, replace(found, method="distil", loss=after[0], difference=_known(after[1]))

    def _described(self, kept: _Attempt) -> Repair:
        method = "refit" if kept.method == "distil" else kept.method
        sizes = kept.fitted_on, self._held_out
        plain, found = self._plain, kept.loss
        return Repair(
            *(method, kept.refits, *sizes, plain[0], found[0]),
            difference_plain=_known(plain[1]),
            difference=_known(found[1]),
        )

    def _nothing(self, reason: str) -> tuple[Workbench, Repair]:
        plain = self._plain[0]
        return self._unrepaired, Repair("none", (), len(self._fit), self._held_out, plain, plain, reason)


def _redrawn(bench: Workbench, pruned: Model, plan: Plan) -> tuple[Workbench, Repair]:
    """The model with operators drawn anew, and what held-out samples say before any training."""
    model, names = reinitialised(bench, plan)
    if not names:
        reason = "the shapes fit without the removed layers, so that nothing had to be drawn anew"
        return bench.successor(pruned), Repair("none", reason=reason)
    kept, judge = bench.successor(model), bench.evaluator(bench.splits.choose)
    loss = drop(judge.reference, judge.evaluate(model))
    return kept, Repair("reinit", held_out=len(bench.splits.choose), loss=loss, redrawn=names)


def _known(difference: float) -> float | None:
    return difference if isfinite(difference) else None


def _standard_error(loss: float, samples: int) -> float:
    """Of a share seen on so many samples; not below what one of them makes."""
    share = min(max(loss, 0.0), 1.0)
    return max(sqrt(share * (1 - share) / max(samples, 1)), 1 / max(samples, 1))

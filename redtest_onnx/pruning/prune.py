"""The whole way: measure, plan, rewrite, verify, and compare what came out with what went in."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from redtest_onnx.documents.base import Document
from redtest_onnx.documents.result import Result
from redtest_onnx.graph.cache_edits import SignatureChange, signature_changes
from redtest_onnx.graph.cost import Cost
from redtest_onnx.graph.model import Model
from redtest_onnx.metrics.agreement.intervals import Interval, share_interval
from redtest_onnx.metrics.agreement.summary import Agreement
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.best_of import planner
from redtest_onnx.pruning.budget import Budget
from redtest_onnx.pruning.candidates import losses_within
from redtest_onnx.pruning.counting import adapters_where_fitted, planning_analysis
from redtest_onnx.pruning.criteria.base import CriterionContext
from redtest_onnx.pruning.documents import prune_document
from redtest_onnx.pruning.follow import close_with_twin
from redtest_onnx.pruning.judging import analyze_and_match, analyze_if_possible
from redtest_onnx.pruning.limits import Limits
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.repair.reinit import refuse_limit
from redtest_onnx.pruning.repair.repair import Repair, RepairSettings, repair
from redtest_onnx.pruning.settings import PruneSettings as PruneSettings
from redtest_onnx.pruning.targets import Targets
from redtest_onnx.pruning.units import removed_of
from redtest_onnx.pruning.verify import LEVELS, verify, verify_generation, verify_removal
from redtest_onnx.pruning.width.choose import plan_with_widths, require_width
from redtest_onnx.runtime.latency import Latency, measure_latency
from redtest_onnx.runtime.provider_check import ProviderReport, check_provider
from redtest_onnx.runtime.threads import one_blas_thread
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis, Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measures:
    """One side of the comparison.

    Attributes:
        cost: parameters, multiply-accumulates, memory.
        file_bytes: size on disk with external data.
        latency: of one sample.
        msrs: redundancy score; None with fewer than two layers left.
        accuracy: share of right answers; None without labels.
    """

    cost: Cost
    file_bytes: int
    latency: Latency
    msrs: float | None
    accuracy: float | None


@dataclass(frozen=True, repr=False)
class Pruning(Result):
    """A pruned model with its proof.

    Attributes:
        model: the pruned model, not saved yet; the original itself if the plan is empty.
        plan: what was taken out.
        analysis: of the original.
        before: measures of the original.
        after: measures of the pruned model.
        repair: what was done to what is left.
        agreement: of the outputs of both.
        evaluated_on: where the samples of accuracy and agreement came from.
        evaluated: number of those samples.
        judged_apart: whether those samples choose nothing; else plans and repairs are chosen by them, too.
        analysis_after: of the pruned model; None with fewer than two layers left.
        original: the model before.
        provider: the pruned model on the execution providers of the options; None if there are none.
    """

    model: Model
    plan: Plan
    analysis: Analysis
    before: Measures
    after: Measures
    repair: Repair
    agreement: Agreement
    evaluated_on: str
    evaluated: int
    judged_apart: bool
    analysis_after: Analysis | None = None
    original: Model | None = field(default=None, compare=False)
    provider: ProviderReport | None = None

    @property
    def signature_changes(self) -> tuple[SignatureChange, ...]:
        """Caches that left the signature with their layers, and new numbers of the others."""
        return () if self.original is None else signature_changes(self.original, self.model)

    @property
    def interval(self) -> Interval | None:
        """In which the accuracy of the pruned model, or its agreement without labels, lies by 95 %.

        That is on all data, for all that the samples tell; None where it is unknown.
        """
        accuracy = self.after.accuracy
        return self.agreement.interval if accuracy is None else share_interval(accuracy, self.evaluated)

    def summary(self) -> str:
        """What was removed, and what that did."""
        share = 1 - self.after.cost.parameters / max(self.before.cost.parameters, 1)
        quality = "outputs that can't be judged"
        if self.agreement.value is not None:
            quality = f"{self.agreement.value:.2%} agreement"
        if self.before.accuracy is not None and self.after.accuracy is not None:
            quality = f"accuracy {self.before.accuracy:.2%} -> {self.after.accuracy:.2%}"
        channels = sum(width.removed for width in self.plan.widths)
        inside = f" and {channels:,} channels" if channels else ""
        return (
            f"{removed_of(self.plan, self.analysis.layers)}{inside} removed, "
            f"{share:.1%} of the parameters; {quality} on {self.evaluated} samples of {self.evaluated_on}"
        )

    def to_dict(self) -> Document:
        """The document of `prune --json`."""
        return prune_document(self, None)

    def records(self) -> list[dict[str, Any]]:
        """One entry per quantity: before, after."""
        sides = [{**asdict(side.cost), **_figures(side)} for side in (self.before, self.after)]
        return [{"quantity": name, "before": sides[0][name], "after": sides[1][name]} for name in sides[0]]


@one_blas_thread()
def plan(
    bench: Workbench,
    budget: Budget,
    settings: PruneSettings | None = None,
    *,
    analysis: Analysis | None = None,
    progress: Progress | None = None,
) -> tuple[Plan, Analysis]:
    """Analyse a model and choose the layers to take out.

    Args:
        bench: the model and calibration samples.
        budget: how many layers may go.
        settings: in which order, and how the result will be repaired.
        analysis: an earlier analysis of the same model, to be used instead of a new one.
        progress: called as work is done.

    Raises:
        InputError: see `analyze`, `make_plan` and `refuse_limit`.
        NegativeVerdictError: a target can't be reached.
    """
    settings = settings or PruneSettings()
    refuse_limit(settings.repair, budget.max_drop)
    analysis = planning_analysis(bench, budget, settings, given=analysis, progress=progress)
    context = CriterionContext(bench.opened, analysis, allowed=adapters_where_fitted(bench, settings.repair))
    limit, criterion = budget.max_drop, settings.criterion
    searches = limit is not None or budget.width or bool(budget.targets)
    with one_blas_thread(solvers=searches or criterion != "redtest"):
        if budget.width:
            require_width(bench, settings.repair, settings.shards is not None)
            return plan_with_widths(context, budget, criterion, progress), analysis
        if limit is not None and progress is not None:
            progress(0, 1, "trying removals")  # first, the original runs on what judges them
        losses = losses_within(bench.opened, limit, settings.repair) if limit is not None else None
        return planner(criterion)(context, budget, losses=losses, progress=progress), analysis


def prune(
    bench: Workbench,
    chosen: Plan,
    analysis: Analysis,
    settings: PruneSettings | None = None,
    *,
    targets: Targets = (),
    max_drop: float | None = None,
    progress: Progress | None = None,
) -> Pruning:
    """Take the plan's layers out of the model, verify the result and measure both.

    Args:
        bench: the model and calibration samples.
        chosen: what to take out.
        analysis: of the model.
        settings: how to repair what is left.
        targets: quantities with the share that may stay of them, repairs included.
        max_drop: the loss on held-out samples that the plan was chosen by.
        progress: called as work is done.

    Raises:
        InternalError: the rewritten model doesn't verify; nothing is returned.
        NegativeVerdictError: the result misses a target, or would be larger than the original.
    """
    limits = Limits(bench, targets, max_drop)
    pruned, repaired = rewrite(bench, chosen, settings, limits=limits, progress=progress)
    if max_drop is not None and repaired.loss is not None and repaired.loss > max_drop:
        log.warning(
            "on held-out samples %.1f points are lost, and %.3g may be: fewer layers (@remove) lose less",
            *(100 * repaired.loss, 100 * max_drop),
        )
    limits.require(pruned, chosen.steps)
    return compare(bench, pruned, chosen, analysis, repaired, progress=progress)


@one_blas_thread()
def rewrite(
    bench: Workbench,
    chosen: Plan,
    settings: PruneSettings | None = None,
    *,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> tuple[Workbench, Repair]:
    """Take the plan's layers out of the model, repair what is left and verify that it runs.

    Args:
        bench: the model and calibration samples.
        chosen: what to take out.
        settings: how to repair.
        limits: what the result must keep to; repairs that break it are left out. Without any, no larger than
            the model.
        progress: called as work is done.

    Returns:
        The workbench of the pruned model, and what was done to it.

    Raises:
        InternalError: the rewritten model doesn't verify; nothing is returned.
    """
    settings, opened = settings or PruneSettings(), bench.opened
    if chosen.widths:
        require_width(bench, settings.repair, settings.shards is not None)
    (progress or _silent)(0, 4, "rewriting")
    pruned, kept = apply_plan(opened, chosen), limits or Limits(bench)
    verify_removal(opened, pruned, chosen)

    @cache
    def closed_up(candidate: Workbench) -> Workbench:
        model = close_with_twin(bench, candidate.model, chosen)
        return candidate if opened is bench and model is candidate.model else bench.successor(model)

    how = RepairSettings(settings.repair, settings.kernel, settings.distil, settings.shards, kept.max_drop)
    with one_blas_thread(solvers=how.method != "none"):
        best, repaired = repair(
            *(opened, pruned, chosen, how),
            allows=lambda candidate: kept.allow(closed_up(candidate)),
            progress=progress,
        )
    closed = closed_up(best)
    verify(bench, closed, levels=LEVELS[1:] if closed.model is pruned and not chosen.widths else LEVELS)
    verify_generation(bench, closed)
    return closed, repaired


@one_blas_thread()
def compare(
    bench: Workbench,
    pruned: Workbench,
    chosen: Plan,
    analysis: Analysis,
    repaired: Repair,
    *,
    progress: Progress | None = None,
) -> Pruning:
    """Measure a pruned model beside the original.

    Args:
        bench: the original and samples; those of `bench.judging` tell accuracy and agreement.
        pruned: what became of it.
        chosen: what was taken out.
        analysis: of the original.
        repaired: how it was repaired.
        progress: called as work is done.
    """
    note = progress or _silent
    note(1, 4, "measuring latency")
    latency = measure_latency([bench, pruned])  # first: the session that verified the pruned one is open
    provider = check_provider(pruned, timed=False) if bench.options.providers else None
    note(2, 4, "comparing outputs")
    known = analyze_and_match(bench, pruned, analysis.settings)
    if known is None:
        evaluator = bench.evaluator()
        result = evaluator.match_sets(pruned.session())
        for side in (bench, pruned):
            side.release_sessions()  # no more runs but those of the probe
        note(3, 4, "measuring redundancy")
        known = evaluator, result, analyze_if_possible(pruned, analysis.settings)
    evaluator, result, remeasured = known
    before = Measures(
        bench.cost,
        bench.model.file_bytes,
        latency[0],
        analysis.redundancy.value,
        evaluator.reference.accuracy,
    )
    after = Measures(
        pruned.cost,
        pruned.model.file_bytes,
        latency[1],
        None if remeasured is None else remeasured.redundancy.value,
        result.accuracy,
    )
    note(4, 4, "measuring redundancy")
    return Pruning(
        model=pruned.model,
        plan=chosen,
        analysis=analysis,
        before=before,
        after=after,
        repair=repaired,
        agreement=result.agreement,
        evaluated_on=bench.judging.source,
        evaluated=result.samples,
        judged_apart=bench.evaluation is not None or bench.splits.apart,
        analysis_after=remeasured,
        original=bench.model,
        provider=provider,
    )


def _figures(side: Measures) -> dict[str, Any]:
    return {
        "file_bytes": side.file_bytes,
        "latency_ms": side.latency.p50,
        "msrs": side.msrs,
        "accuracy": side.accuracy,
    }


def _silent(done: int, total: int, what: str) -> None:
    """No progress is shown."""

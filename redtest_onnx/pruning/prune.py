"""The whole way: measure, plan, rewrite, verify, and compare what came out with what went in."""

from __future__ import annotations

from dataclasses import dataclass, field

from redtest_onnx.errors import InputError
from redtest_onnx.graph.cost import Cost
from redtest_onnx.graph.model import Model
from redtest_onnx.metrics.agreement import Agreement
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.budget import Budget, Losses, drop, make_plan
from redtest_onnx.pruning.criteria.base import CriterionContext
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.repair.repair import FitSettings, Fitted, Method, Repair, fit_to_original, repair
from redtest_onnx.pruning.verify import verify, verify_removal
from redtest_onnx.runtime.latency import Latency, measure_latency
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis, AnalysisSettings, Progress, analyze

_FITTED_IN_SEARCH = 256  # enough to tell a good plan from a bad one


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


@dataclass(frozen=True)
class Pruning:
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


@dataclass(frozen=True)
class PruneSettings:
    """How layers are chosen and what is left is repaired.

    Attributes:
        criterion: the order in which layers go, one of `criteria.names()`.
        similarity: how similarity is measured.
        repair: "none", "adapter", "refit" or "auto", see `repair`; with repair more layers can go.
        kernel: size of the convolutions of fitted adapters.
    """

    criterion: str = "redtest"
    similarity: AnalysisSettings = field(default_factory=AnalysisSettings)
    repair: Method = "auto"
    kernel: int = 1


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
        InputError: see `analyze` and `make_plan`.
        NegativeVerdictError: a target can't be reached.
    """
    settings = settings or PruneSettings()
    analysis = analysis or analyze(bench, settings.similarity, progress)
    context = CriterionContext(bench.opened, analysis)
    losses = _losses(bench.opened, settings) if budget.max_drop is not None else None
    chosen = make_plan(context, budget, settings.criterion, losses=losses, progress=progress)
    return chosen, analysis


def _losses(bench: Workbench, settings: PruneSettings) -> Losses:
    """What plans lose on held-out samples, plainly and after a quick repair."""
    evaluator = bench.evaluator(bench.splits.choose)

    def loss(candidate: Plan) -> float:
        pruned = apply_plan(bench, candidate)
        return drop(evaluator.reference, evaluator.evaluate(pruned))

    if settings.repair == "none" or bench.data.synthetic:
        return Losses(loss)
    method: Fitted = "adapter" if settings.repair == "adapter" else "refit"
    quick = FitSettings(method, bench.splits.fit[:_FITTED_IN_SEARCH], rounds=1)

    def repaired_loss(candidate: Plan) -> float:
        fitted, _ = fit_to_original(bench, apply_plan(bench, candidate), candidate, quick)
        return drop(evaluator.reference, evaluator.evaluate(fitted))

    return Losses(loss, repaired_loss)


def prune(
    bench: Workbench,
    chosen: Plan,
    analysis: Analysis,
    settings: PruneSettings | None = None,
    *,
    progress: Progress | None = None,
) -> Pruning:
    """Take the plan's layers out of the model, verify the result and measure both.

    Args:
        bench: the model and calibration samples.
        chosen: what to take out.
        analysis: of the model.
        settings: how to repair what is left.
        progress: called as work is done.

    Raises:
        InternalError: the rewritten model doesn't verify; nothing is returned.
    """
    pruned, repaired = rewrite(bench, chosen, settings, progress=progress)
    return compare(bench, pruned, chosen, analysis, repaired, progress=progress)


def rewrite(
    bench: Workbench,
    chosen: Plan,
    settings: PruneSettings | None = None,
    *,
    progress: Progress | None = None,
) -> tuple[Workbench, Repair]:
    """Take the plan's layers out of the model, repair what is left and verify that it runs.

    Args:
        bench: the model and calibration samples.
        chosen: what to take out.
        settings: how to repair.
        progress: called as work is done.

    Returns:
        The workbench of the pruned model, and what was done to it.

    Raises:
        InternalError: the rewritten model doesn't verify; nothing is returned.
    """
    settings = settings or PruneSettings()
    (progress or _silent)(0, 4, "rewriting")
    opened = bench.opened
    pruned = apply_plan(opened, chosen)
    verify_removal(opened, pruned, chosen)
    pruned, repaired = repair(opened, pruned, chosen, settings.repair, settings.kernel, progress)
    closed = bench.successor(bench.view.close(pruned))
    verify(bench, closed)
    return closed, repaired


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
    note(1, 4, "comparing outputs")
    evaluator = bench.evaluator()
    result = evaluator.evaluate(pruned.session())
    note(2, 4, "measuring latency")
    latency = measure_latency([bench, pruned])
    note(3, 4, "measuring redundancy")
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
        _redundancy(pruned, analysis.settings),
        result.accuracy,
    )
    note(4, 4, "done")
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
    )


def _silent(done: int, total: int, what: str) -> None:
    """Progress that nobody watches."""


def _redundancy(bench: Workbench, settings: AnalysisSettings) -> float | None:
    try:
        return analyze(bench, settings).redundancy.value
    except InputError:
        return None  # fewer than two layers are left to compare

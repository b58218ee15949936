"""The whole way: measure, plan, rewrite, verify, and compare what came out with what went in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from redtest_onnx.data.dataset import Dataset
from redtest_onnx.data.splits import fit_indices, holdout_indices, sample_indices
from redtest_onnx.errors import InputError
from redtest_onnx.graph.cost import Cost
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import Model
from redtest_onnx.metrics.agreement.summary import Agreement
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.budget import Budget, drop, make_plan
from redtest_onnx.pruning.criteria.base import CriterionContext
from redtest_onnx.pruning.limits import Limits
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.repair.repair import Calibration, Fitted, Method, Repair, fit_to_original, repair
from redtest_onnx.pruning.targets import Quantities
from redtest_onnx.pruning.verify import verify, verify_removal
from redtest_onnx.runtime.evaluate import Evaluator
from redtest_onnx.runtime.latency import Latency, measure_latency
from redtest_onnx.runtime.opened import inline_for_data, resolve_cost
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.shapes import resolve_shapes
from redtest_onnx.similarity.analyze import Analysis, AnalysisSettings, Progress, analyze

log = logging.getLogger(__name__)

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


def plan(
    model: Model,
    data: Dataset,
    budget: Budget,
    *,
    criterion: str = "redtest",
    settings: AnalysisSettings | None = None,
    method: Method = "auto",
    options: RunOptions | None = None,
    analysis: Analysis | None = None,
    progress: Progress | None = None,
) -> tuple[Plan, Analysis]:
    """Analyse a model and choose the layers to take out.

    Args:
        model: the model.
        data: calibration samples.
        budget: how many layers may go.
        criterion: in which order.
        settings: how similarity is measured.
        method: how the result will be repaired; with repair more layers can go.
        options: device and threads.
        analysis: an earlier analysis of the same model, to be used instead of a new one.
        progress: called as work is done.

    Raises:
        InputError: see `analyze` and `make_plan`.
        NegativeVerdictError: a target can't be reached.
    """
    options = options or RunOptions()
    analysis = analysis or analyze(model, data, settings, options, progress)
    digest, model = model.sha256, inline_for_data(model, data).model
    index = GraphIndex(model.graph)
    shapes = resolve_shapes(model, index, data, options).shapes
    loss: Callable[[Plan], float] | None = None
    repaired_loss: Callable[[Plan], float] | None = None
    if budget.max_drop is not None:
        seed = analysis.settings.seed
        evaluator = Evaluator(model, data, holdout_indices(data, seed), options)
        if not evaluator.judged:
            log.warning(
                "no output of %s could be judged, so nothing is removed on its account: say how many layers with "
                "--remove, or what its outputs are with --output-kind",
                model.label,
            )

        def loss(candidate: Plan) -> float:
            return _loss(evaluator, candidate, lambda: apply_plan(model, candidate, shapes))

        if method != "none" and not data.synthetic:
            fit = fit_indices(data, seed)[:_FITTED_IN_SEARCH]
            calibration = Calibration(data, fit, holdout_indices(data, seed), options)
            fitting_method: Fitted = "adapter" if method == "adapter" else "refit"

            def repaired_loss(candidate: Plan) -> float:
                def fitted() -> Model:
                    pruned = apply_plan(model, candidate, shapes)
                    return fit_to_original(
                        model, pruned, candidate, shapes, calibration, fitting_method, rounds=1
                    )[0]

                return _loss(evaluator, candidate, fitted)

    seed = analysis.settings.seed
    # Without data nothing could be fitted: an adapter would be a guess.
    adapters = not data.synthetic or method == "adapter"
    context = CriterionContext(
        *(model, analysis, shapes, data, fit_indices(data, seed), options),
        allowed=lambda layer: adapters or layer.action != "adapter",
        seed=seed,
    )
    chosen = make_plan(
        context,
        budget,
        criterion,
        quantities=Quantities(model, data, shapes, options),
        loss=loss,
        repaired_loss=repaired_loss,
        progress=progress,
    )
    return replace(chosen, model_sha256=digest), analysis


def prune(
    model: Model,
    data: Dataset,
    chosen: Plan,
    analysis: Analysis,
    *,
    evaluation: Dataset | None = None,
    method: Method = "auto",
    kernel: int = 1,
    targets: tuple[tuple[str, float], ...] = (),
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> Pruning:
    """Take the plan's layers out of the model, verify the result and measure both.

    Args:
        model: the model.
        data: calibration samples.
        chosen: what to take out.
        analysis: of the model.
        evaluation: samples for accuracy and agreement; the held-out calibration samples if absent.
        method: how to repair, see `repair`.
        kernel: size of the convolutions of fitted adapters.
        targets: quantities with the share that may stay of them, repairs included.
        options: device and threads.
        progress: called as work is done.

    Raises:
        InternalError: the rewritten model doesn't verify; nothing is returned.
        NegativeVerdictError: the result misses a target, or would be larger than the original.
    """
    limits = Limits(model, data, options or RunOptions(), targets)
    pruned, repaired = rewrite(
        *(model, data, chosen, analysis, limits),
        method=method,
        kernel=kernel,
        options=options,
        progress=progress,
    )
    limits.require(pruned, chosen.steps)
    return compare(
        model,
        pruned,
        data,
        chosen,
        analysis,
        repaired,
        evaluation=evaluation,
        options=options,
        progress=progress,
    )


def rewrite(
    model: Model,
    data: Dataset,
    chosen: Plan,
    analysis: Analysis,
    limits: Limits | None = None,
    *,
    method: Method = "auto",
    kernel: int = 1,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> tuple[Model, Repair]:
    """Take the plan's layers out of the model, repair what is left and verify that it runs.

    Args:
        model: the model.
        data: calibration samples.
        chosen: what to take out.
        analysis: of the model.
        limits: what the result must keep to; repairs that break it are left out. Without any, no larger than
            `model`.
        method: how to repair, see `repair`.
        kernel: size of the convolutions of fitted adapters.
        options: device and threads.
        progress: called as work is done.

    Raises:
        InternalError: the rewritten model doesn't verify; nothing is returned.
    """
    options = options or RunOptions()
    limits = limits or Limits(model, data, options)
    (progress or _silent)(0, 4, "rewriting")
    view = inline_for_data(model, data)
    shapes = resolve_shapes(view.model, GraphIndex(view.model.graph), data, options).shapes
    pruned = apply_plan(view.model, chosen, shapes)
    verify_removal(view.model, pruned, chosen, data, options, shapes)
    seed = analysis.settings.seed
    calibration = Calibration(
        *(data, fit_indices(data, seed), holdout_indices(data, seed), options, kernel),
        allows=lambda candidate: limits.allow(view.close(candidate)),
    )
    pruned, repaired = repair(view.model, pruned, chosen, shapes, calibration, method, progress)
    closed = view.close(pruned)
    verify(model, closed, data, options)
    return closed, repaired


def compare(
    model: Model,
    pruned: Model,
    data: Dataset,
    chosen: Plan,
    analysis: Analysis,
    repaired: Repair,
    *,
    evaluation: Dataset | None = None,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> Pruning:
    """Measure a pruned model beside the original.

    Args:
        model: the original.
        pruned: what became of it.
        data: calibration samples.
        chosen: what was taken out.
        analysis: of the original.
        repaired: how it was repaired.
        evaluation: samples for accuracy and agreement; the held-out calibration samples if absent.
        options: device and threads.
        progress: called as work is done.
    """
    options, note = options or RunOptions(), progress or _silent
    note(1, 4, "comparing outputs")
    samples, indices = data, holdout_indices(data, analysis.settings.seed)
    if evaluation is not None:
        samples, indices = evaluation, sample_indices(evaluation, len(evaluation), analysis.settings.seed)
    evaluator = Evaluator(model, samples, indices, options)
    result = evaluator.match_sets(pruned)
    note(2, 4, "measuring latency")
    latency = measure_latency([model, pruned], data, options)
    note(3, 4, "measuring redundancy")
    before = Measures(
        resolve_cost(model, data, options),
        model.file_bytes,
        latency[0],
        analysis.redundancy.value,
        evaluator.reference.accuracy,
    )
    after = Measures(
        resolve_cost(pruned, data, options),
        pruned.file_bytes,
        latency[1],
        _redundancy(pruned, data, analysis.settings, options),
        result.accuracy,
    )
    note(4, 4, "done")
    return Pruning(
        model=pruned,
        plan=chosen,
        analysis=analysis,
        before=before,
        after=after,
        repair=repaired,
        agreement=result.agreement,
        evaluated_on=samples.source,
        evaluated=result.samples,
    )


def _loss(evaluator: Evaluator, candidate: Plan, make: Callable[[], Model]) -> float:
    """What a candidate loses; without bound if it can't be run."""
    try:
        return drop(evaluator.reference, evaluator.evaluate(make()))
    except InputError as error:
        log.info("without %s: %s", ", ".join(step.region for step in candidate.steps), error.what)
        return float("inf")


def _silent(done: int, total: int, what: str) -> None:
    """Progress that nobody watches."""


def _redundancy(model: Model, data: Dataset, settings: AnalysisSettings, options: RunOptions) -> float | None:
    try:
        return analyze(model, data, settings, options).redundancy.value
    except InputError:
        return None  # fewer than two layers are left to compare

"""One fit of a pruned model to its original, whether it helps or not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from redtest_onnx.arrays import Indices
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning.apply import AdapterInsertion, apply_with_adapters
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.repair.equations import SEARCHING_ROWS
from redtest_onnx.pruning.repair.known import KnownValues
from redtest_onnx.pruning.repair.refit import Effort, Refit, refit
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Progress

Method = Literal["none", "adapter", "refit", "distil", "reinit", "auto"]
Fitted = Literal["adapter", "refit", "distil"]
METHODS: tuple[Method, ...] = get_args(Method)
_TRIED_ON = 256  # samples, enough to tell a good plan from a bad one


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

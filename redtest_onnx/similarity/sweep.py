"""MSRS over what has to be chosen: samples per batch, alpha, threshold; with the spread of each estimator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Literal

import numpy as np

from redtest_onnx.documents.base import Document, number
from redtest_onnx.errors import InputError
from redtest_onnx.metrics.cka import UNBIASED_SAMPLES, Estimator, combine
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis, AnalysisSettings, analyze, redundancy_of
from redtest_onnx.similarity.measure import Progress
from redtest_onnx.similarity.rescore import rescore

Choice = Literal["samples", "alpha", "threshold"]

SAMPLES = (8, 16, 32, 64, 128, 256, 512)
ALPHAS = (5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, inf)
THRESHOLDS = tuple(k / 100 for k in range(50, 100, 2))
_ESTIMATORS: tuple[Estimator, ...] = ("minibatch", "paper", "biased")
_PROPOSED = tuple(k / 100 for k in range(30, 100))
NEARLY_NONE = 0.5
"""MSRS below which a network counts as not redundant: no pair of layers is beyond the threshold."""


@dataclass(frozen=True)
class SweepPoint:
    """MSRS for one value of one choice.

    Attributes:
        choice: what was varied.
        value: the value; alpha may be infinite.
        estimator: how batches are put together.
        msrs: the score.
        std: its standard deviation over batches; None for a single one.
        standard_error: of the score; None for a single batch.
        batches: how many were measured.
    """

    choice: Choice
    value: float
    estimator: Estimator
    msrs: float
    std: float | None
    standard_error: float | None
    batches: int


@dataclass(frozen=True)
class ThresholdProposal:
    """The lowest threshold at which a network that is too small scores nearly nothing (RedTest's choice).

    Attributes:
        threshold: the threshold, in steps of 0.01.
        small: what the small network is called.
        small_msrs: its score at that threshold.
        msrs: the score of the model at that threshold.
    """

    threshold: float
    small: str
    small_msrs: float
    msrs: float


@dataclass(frozen=True)
class Sweep:
    """Scores over all choices, each varied by itself while the others are those of the settings.

    Attributes:
        points: in the order in which they were varied.
        settings: with the threshold that was used.
    """

    points: tuple[SweepPoint, ...]
    settings: AnalysisSettings

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What was varied, in that order."""
        return tuple(dict.fromkeys(p.choice for p in self.points))

    @property
    def estimators(self) -> tuple[Estimator, ...]:
        """The estimators that every choice was scored with."""
        return tuple(dict.fromkeys(p.estimator for p in self.points))

    def of(self, choice: Choice, estimator: Estimator) -> tuple[SweepPoint, ...]:
        """The points of one choice and one estimator."""
        return tuple(p for p in self.points if p.choice == choice and p.estimator == estimator)

    def to_dict(self) -> list[Document]:
        """One entry per point; an infinite alpha is "inf"."""
        return [
            {
                "choice": p.choice,
                "value": "inf" if p.value == inf else p.value,
                "estimator": p.estimator,
                "msrs": number(p.msrs),
                "std": number(p.std),
                "standard_error": number(p.standard_error),
                "batches": p.batches,
            }
            for p in self.points
        ]


def sweep(bench: Workbench, analysis: Analysis, progress: Progress | None = None) -> Sweep:
    """Measure MSRS over samples per batch, and score one measurement over alpha and threshold.

    The estimators are "minibatch", "paper" and "biased"; numbers of samples are those of `SAMPLES` of which
    the data has at least two batches, and that of the analysis.

    Args:
        bench: the model and its samples.
        analysis: of them; its settings stay where they are not varied.
        progress: called after every measurement.

    Raises:
        InputError: the analysis is of the estimator "exact", which has no batches.
    """
    settings = analysis.settings
    if settings.estimator == "exact":
        raise InputError(
            "a sweep varies batches, which @estimator=exact has none of", hint="take @estimator=minibatch"
        )
    sizes = [n for n in SAMPLES if UNBIASED_SAMPLES <= n <= len(bench.data) // 2]
    sizes = sorted({*sizes, analysis.samples})
    runs = [(n, estimator) for n in sizes for estimator in _ESTIMATORS if estimator != "paper"]
    points: list[SweepPoint] = []
    own: dict[str, Analysis] = {}
    for done, (samples, estimator) in enumerate(runs, start=1):
        found = analyze(bench, replace(settings, samples=samples, estimator=estimator))
        points.append(_point("samples", samples, found))
        if estimator == "minibatch":
            points.append(_point("samples", samples, _as_paper(found)))
        if samples == analysis.samples:
            own[estimator] = found
        if progress:
            progress(done, len(runs), "measuring the sweep")
    points += _scores((own["minibatch"], _as_paper(own["minibatch"]), own["biased"]))
    return Sweep(tuple(points), replace(settings, samples=analysis.samples))


def sweep_scores(analysis: Analysis, where: str | None = None) -> Sweep:
    """Score one measurement over alpha and threshold; nothing is run, so that samples are not varied.

    The unbiased HSIC of single batches gives "minibatch" and "paper", whichever of them the analysis has;
    every other measurement gives its own estimator alone.

    Args:
        analysis: what was measured, usually read from a file.
        where: that file, for messages.

    Raises:
        InputError: its estimator is "paper" over several batches, and it holds none of them.
    """
    settings = analysis.settings
    if analysis.hsic_batches is not None:
        both = settings.estimator in ("minibatch", "paper")
        readings: tuple[Estimator, ...] = ("minibatch", "paper") if both else (settings.estimator,)
        bases = [_combined(analysis, estimator) for estimator in readings]
    elif settings.estimator == "paper" and analysis.batches > 1:
        raise InputError(
            "has no similarities of single batches, whose scores @estimator=paper averages",
            where=where,
            hint="a sweep of the model itself measures them",
        )
    else:
        whole = replace(analysis.redundancy, std=None, standard_error=None, per_batch=())
        bases = [replace(analysis, redundancy=whole)]
    used = replace(settings, threshold=analysis.redundancy.threshold, samples=analysis.samples)
    return Sweep(tuple(_scores(bases)), used)


def propose_threshold(small: Analysis, analysis: Analysis, name: str) -> ThresholdProposal:
    """The lowest threshold at which a small network that underfits has no redundant pair.

    RedTest chooses the threshold so that a network that is too small for its task, whose layers all have work
    to do, is not called redundant.

    Args:
        small: analysis of such a network, on the same samples.
        analysis: of the model that the threshold is for.
        name: what the small network is called.

    Raises:
        InputError: it is redundant at every threshold up to 0.99.
    """
    for threshold in _PROPOSED:
        score = rescore(small, threshold=threshold).analysis.redundancy.value
        if score < NEARLY_NONE:
            own = rescore(analysis, threshold=threshold).analysis.redundancy.value
            return ThresholdProposal(threshold, name, score, own)
    raise InputError(
        f"{name} has near-duplicate layers at every threshold up to 0.99: it is no network that underfits",
        hint="give a smaller one, or one that was trained less",
    )


def _scores(bases: Sequence[Analysis]) -> list[SweepPoint]:
    """Measurements under every alpha and every threshold."""
    alphas = [_point("alpha", a, rescore(base, alpha=a).analysis) for base in bases for a in ALPHAS]
    return alphas + [
        _point("threshold", t, rescore(base, threshold=t).analysis) for base in bases for t in THRESHOLDS
    ]


def _combined(analysis: Analysis, estimator: Estimator) -> Analysis:
    """The batches of an analysis put together by an estimator."""
    stack = analysis.hsic_batches
    assert stack is not None
    before = analysis.redundancy
    settings = replace(
        analysis.settings,
        estimator=estimator,
        alpha=before.alpha,
        threshold=before.threshold,
        gate=before.gate,
    )
    similarity = combine(stack, estimator)
    redundancy = redundancy_of(stack, similarity, settings)
    return replace(analysis, similarity=similarity, settings=settings, redundancy=redundancy)


def _as_paper(found: Analysis) -> Analysis:
    """The same measurement with the scores of batches averaged."""
    settings = replace(found.settings, estimator="paper")
    paper = replace(found, settings=settings)
    redundancy = paper.redundancy
    values: Sequence[float] = [v for v in redundancy.per_batch if np.isfinite(v)]
    error = None if redundancy.std is None else redundancy.std / len(values) ** 0.5
    mean = float(np.mean(values)) if values else redundancy.value
    return replace(paper, redundancy=replace(redundancy, value=mean, standard_error=error))


def _point(choice: Choice, value: float, found: Analysis) -> SweepPoint:
    score: Any = found.redundancy
    return SweepPoint(
        choice, value, found.settings.estimator, score.value, score.std, score.standard_error, found.batches
    )

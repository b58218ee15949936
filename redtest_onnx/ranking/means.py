"""What the best candidates are like, by each score (RedTest, figure 6 and figure E5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from redtest_onnx.ranking.candidate import Candidate
from redtest_onnx.ranking.score import ScoreName

MOST = 20
"""Best candidates that are averaged unless the user says how many."""


@dataclass(frozen=True)
class TopMeans:
    """Means over the best candidates by one score.

    Attributes:
        score: the score.
        names: the candidates, the best first.
        accuracy: their mean accuracy.
        accuracy_error: standard error of that mean; None for a single candidate.
        test_accuracy: likewise; None where none is known, as for the costs and MSRS below.
        parameters: mean number of learned values.
        macs: mean multiply-accumulates.
        latency_ms: mean latency.
        msrs: mean redundancy score.
    """

    score: ScoreName
    names: tuple[str, ...]
    accuracy: float
    accuracy_error: float | None
    test_accuracy: float | None
    parameters: float | None
    macs: float | None
    latency_ms: float | None
    msrs: float | None


def number_of_best(pool: int, asked: int | None) -> int:
    """How many candidates are averaged: as many as asked for, else a tenth of the pool, 20 at most.

    Means over most of a pool are the pool's whatever chose them.
    """
    return min(pool, max(1, min(MOST, pool // 10)) if asked is None else asked)


def means_of(score: ScoreName, best: Sequence[Candidate]) -> TopMeans:
    """The means of candidates that a score put first.

    Args:
        score: the score.
        best: candidates with an accuracy, the best first; at least one.
    """
    accuracies = [c.accuracy for c in best if c.accuracy is not None]
    return TopMeans(
        score=score,
        names=tuple(c.name for c in best),
        accuracy=fmean(accuracies),
        accuracy_error=stdev(accuracies) / len(accuracies) ** 0.5 if len(accuracies) > 1 else None,
        test_accuracy=_mean(c.test_accuracy for c in best),
        parameters=_mean(c.parameters for c in best),
        macs=_mean(c.macs for c in best),
        latency_ms=_mean(c.latency_ms for c in best),
        msrs=_mean(c.msrs for c in best),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None

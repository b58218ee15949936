"""Candidates in order, with what speaks for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Annotated, Any

from redtest_onnx.checks import Between, Positive, check_settings
from redtest_onnx.documents.base import Document
from redtest_onnx.documents.result import Result
from redtest_onnx.errors import InputError
from redtest_onnx.ranking.accuracy import BenchmarkData
from redtest_onnx.ranking.candidate import Candidate, CostName
from redtest_onnx.ranking.correlation import Correlation, correlations
from redtest_onnx.ranking.documents import ranking_document
from redtest_onnx.ranking.expected import ExpectedMsrs, fit_expected
from redtest_onnx.ranking.means import TopMeans, means_of, number_of_best
from redtest_onnx.ranking.pareto import pareto_front
from redtest_onnx.ranking.score import PAPER_CONSTANTS, PAPER_EXPECTED, SCORES, ScoreName, ScoreWeights
from redtest_onnx.ranking.table import AccuracyTable


@dataclass(frozen=True)
class RankingSettings:
    """How candidates are scored.

    Attributes:
        cost: which cost counts.
        by: the score that orders them.
        exponent: w; RedTest's for this cost and benchmark if None.
        beta: weight of redundancy; likewise.
        target: T in the unit of the cost; RedTest's if a benchmark is named, else the median of the
            candidates if None.
        expected: M; RedTest's 35 if None.
        benchmark: whose constants of RedTest serve; those of CIFAR-10 if None.
        best: of how many candidates the means under each score are taken; a tenth, 20 at most, if None.
    """

    cost: CostName = "macs"
    by: ScoreName = "S3"
    exponent: float | None = None
    beta: float | None = None
    target: Annotated[float, Between(0, above=True)] | None = None
    expected: Annotated[float, Between(0, above=True)] | None = None
    benchmark: BenchmarkData | None = None
    best: Positive | None = None

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def weights(self) -> tuple[float, float]:
        """Exponent and beta.

        Raises:
            InputError: one of them would reward cost or redundancy.
        """
        paper = PAPER_CONSTANTS[self.benchmark or "cifar10"][self.cost]
        exponent = paper.exponent if self.exponent is None else self.exponent
        beta = paper.beta if self.beta is None else self.beta
        if exponent > 0 or beta < 0:
            raise InputError(
                f"an exponent of {exponent:g} with a beta of {beta:g} would reward cost or redundancy",
                hint="the exponent is at most 0, beta at least 0",
            )
        return exponent, beta


@dataclass(frozen=True)
class RankingEntry:
    """A candidate in its place.

    Attributes:
        candidate: the candidate.
        scores: its scores by name; None where a measure is missing.
        place: from 1 on, by the score that orders the ranking.
        pareto: whether no other is at least as good in accuracy, cost and MSRS, and better in one.
    """

    candidate: Candidate
    scores: dict[ScoreName, float | None]
    place: int
    pareto: bool


@dataclass(frozen=True)
class UnrankedEntry:
    """What has no place, and why."""

    name: str
    reason: str


@dataclass(frozen=True, repr=False)
class Ranking(Result):
    """Candidates by score.

    Attributes:
        rows: the best first.
        unranked: candidates without a place, and files that could not be measured.
        settings: with the values that were used.
        fit: the MSRS that networks of a depth have among the candidates, for comparison; it does not enter
            the scores. None if no MSRS is known.
        means: what the best candidates by S1, S2 and S3 are like. All three choose among the same
            candidates: those that have every score that any has.
        pool: the number of these candidates.
        correlations: of every measure with accuracy, over the candidates that have both.
    """

    rows: tuple[RankingEntry, ...]
    unranked: tuple[UnrankedEntry, ...]
    settings: RankingSettings
    fit: ExpectedMsrs | None
    means: tuple[TopMeans, ...] = ()
    pool: int = 0
    correlations: tuple[Correlation, ...] = ()

    def summary(self) -> str:
        """The best candidate."""
        best = f"best is {self.rows[0].candidate.name}" if self.rows else "none has a place"
        return f"{len(self.rows)} candidates by {self.settings.by}, {best}"

    def to_dict(self) -> Document:
        """The document of `rank --json`."""
        return ranking_document("rank", self)

    def records(self) -> list[dict[str, Any]]:
        """One entry per candidate, the best first."""
        return [
            {
                "place": entry.place,
                **asdict(entry.candidate),
                **{str(kind): score for kind, score in entry.scores.items()},
                "pareto": entry.pareto,
            }
            for entry in self.rows
        ]


Scored = tuple[dict[ScoreName, float | None], Candidate]


def in_order(scored: Sequence[Scored], settings: RankingSettings) -> list[Scored]:
    """Candidates that have the score which orders them, the best first.

    Args:
        scored: candidates with all their scores.
        settings: say which score, and which cost decides between equal ones.
    """
    placed = [(score, row) for row in scored if (score := row[0][settings.by]) is not None]
    placed.sort(key=lambda item: (-item[0], *_preference(item[1][1], settings.cost)))
    return [row for _, row in placed]


def rank_candidates(
    candidates: Sequence[Candidate],
    settings: RankingSettings,
    failed: Sequence[UnrankedEntry] = (),
    table: AccuracyTable | None = None,
) -> Ranking:
    """Put candidates in the order of a score.

    Args:
        candidates: what is to be ranked.
        settings: the score and its weights.
        failed: what could not be measured; passed on.
        table: what was asked for measures, and did not have those that are missing.

    Raises:
        InputError: no candidate can be ranked, with the first reason.
    """
    weights = _weights(settings, candidates)
    fit = fit_expected(candidates) if any(c.msrs is not None for c in candidates) else None
    scored = [({kind: weights.score(c, kind) for kind in SCORES}, c) for c in candidates]
    unranked = [
        UnrankedEntry(c.name, _reason(c, settings, table))
        for scores, c in scored
        if scores[settings.by] is None
    ]
    placed = in_order(scored, settings)
    if not placed:
        reasons = [f"; of {item.name}: {item.reason}" for item in (*failed, *unranked)[:1]]
        raise InputError(f"no candidate can be ranked{''.join(reasons)}")
    front = pareto_front([c for _, c in placed], settings.cost)
    pool = _comparable(scored)
    return Ranking(
        rows=tuple(RankingEntry(c, scores, i + 1, i in front) for i, (scores, c) in enumerate(placed)),
        unranked=(*failed, *unranked),
        settings=replace(
            settings,
            exponent=weights.exponent,
            beta=weights.beta,
            target=weights.target,
            expected=weights.expected,
        ),
        fit=fit,
        means=_means(pool, settings),
        pool=len(pool),
        correlations=correlations(candidates),
    )


def _comparable(scored: Sequence[Scored]) -> list[Scored]:
    """The candidates that have every score that any of them has."""
    kinds = [kind for kind in SCORES if any(scores[kind] is not None for scores, _ in scored)]
    return [row for row in scored if all(row[0][kind] is not None for kind in kinds)]


def _means(pool: Sequence[Scored], settings: RankingSettings) -> tuple[TopMeans, ...]:
    count = number_of_best(len(pool), settings.best)
    found = []
    for kind in SCORES if pool else ():
        if placed := in_order(pool, replace(settings, by=kind)):
            found.append(means_of(kind, [c for _, c in placed[:count]]))
    return tuple(found)


def _weights(settings: RankingSettings, candidates: Sequence[Candidate]) -> ScoreWeights:
    """The settings with every constant filled in."""
    exponent, beta = settings.weights
    target = settings.target
    if target is None and settings.benchmark is not None:
        target = PAPER_CONSTANTS[settings.benchmark][settings.cost].target
    if target is None:
        costs = [cost for c in candidates if (cost := c.cost(settings.cost))]
        target = median(costs) if costs else 1.0
    expected = PAPER_EXPECTED if settings.expected is None else settings.expected
    return ScoreWeights(settings.cost, target, exponent, beta, expected)


def _preference(candidate: Candidate, cost: CostName) -> tuple[float, float, float, str]:
    """Order of candidates of equal score: a dominated one comes behind what dominates it."""
    return (
        -(candidate.accuracy or 0.0),
        candidate.cost(cost) or 0.0,
        float("inf") if candidate.msrs is None else candidate.msrs,
        candidate.name,
    )


def _reason(candidate: Candidate, settings: RankingSettings, table: AccuracyTable | None) -> str:
    def lacking(column: str) -> str | None:
        return table.lacks(candidate.name, column) if table else None

    if candidate.accuracy is None:
        advice = "give @data with labels, or @metrics"
        return f"its accuracy is unknown: {lacking('accuracy') or advice}"
    if not candidate.cost(settings.cost):
        column = "latency_ms" if settings.cost == "latency" else settings.cost
        advice = f"@metrics with a column {column} would tell it"
        return f"its {settings.cost} is unknown: {lacking(column) or advice}"
    if candidate.layers:
        return f"its MSRS is undefined: {candidate.undefined} of {candidate.layers} layers do not vary"
    return "its MSRS is unknown: give @data or models to measure it, or @metrics with a column msrs"

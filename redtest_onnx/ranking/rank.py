"""Candidates in order, with what speaks for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Annotated, Any

from redtest_onnx.checks import Between, check_settings
from redtest_onnx.documents.base import Document
from redtest_onnx.documents.result import Result
from redtest_onnx.errors import InputError
from redtest_onnx.ranking.candidate import Candidate, CostName
from redtest_onnx.ranking.documents import ranking_document
from redtest_onnx.ranking.expected import ExpectedMsrs, fit_expected
from redtest_onnx.ranking.pareto import pareto_front
from redtest_onnx.ranking.score import PAPER_WEIGHTS, SCORES, ScoreName, ScoreWeights


@dataclass(frozen=True)
class RankingSettings:
    """How candidates are scored.

    Attributes:
        cost: which cost counts.
        by: the score that orders them.
        exponent: w; RedTest's for this cost if None.
        beta: weight of redundancy; RedTest's for this cost if None.
        target: T in the unit of the cost; the median of the candidates if None.
        expected: M; fitted to the candidates over their depth if None.
    """

    cost: CostName = "macs"
    by: ScoreName = "S3"
    exponent: float | None = None
    beta: float | None = None
    target: Annotated[float, Between(0, above=True)] | None = None
    expected: Annotated[float, Between(0, above=True)] | None = None

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def weights(self) -> tuple[float, float]:
        """Exponent and beta.

        Raises:
            InputError: one of them would reward cost or redundancy.
        """
        paper = PAPER_WEIGHTS[self.cost]
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
        fit: the expected MSRS over depth; None if a constant was given or no MSRS is known.
    """

    rows: tuple[RankingEntry, ...]
    unranked: tuple[UnrankedEntry, ...]
    settings: RankingSettings
    fit: ExpectedMsrs | None

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


def rank_candidates(
    candidates: Sequence[Candidate], settings: RankingSettings, failed: Sequence[UnrankedEntry] = ()
) -> Ranking:
    """Put candidates in the order of a score.

    Args:
        candidates: what is to be ranked.
        settings: the score and its weights.
        failed: what could not be measured; passed on.

    Raises:
        InputError: no candidate can be ranked, with the first reason.
    """
    exponent, beta = settings.weights
    costs = [cost for c in candidates if (cost := c.cost(settings.cost))]
    target = settings.target or (median(costs) if costs else 1.0)
    fit = None
    if settings.expected is None and any(c.msrs is not None for c in candidates):
        fit = fit_expected(candidates)
    constant = settings.expected or 1.0
    objective = ScoreWeights(settings.cost, target, exponent, beta, fit or (lambda layers: constant))
    scored = [({kind: objective.score(c, kind) for kind in SCORES}, c) for c in candidates]
    unranked = [
        UnrankedEntry(c.name, _reason(c, settings)) for scores, c in scored if scores[settings.by] is None
    ]
    placed = [(score, scores, c) for scores, c in scored if (score := scores[settings.by]) is not None]
    if not placed:
        reasons = [f"; of {item.name}: {item.reason}" for item in (*failed, *unranked)[:1]]
        raise InputError(f"no candidate can be ranked{''.join(reasons)}")
    placed.sort(key=lambda row: (-row[0], row[2].cost(settings.cost) or 0, row[2].name))
    front = pareto_front([c for _, _, c in placed], settings.cost)
    return Ranking(
        rows=tuple(RankingEntry(c, scores, i + 1, i in front) for i, (_, scores, c) in enumerate(placed)),
        unranked=(*failed, *unranked),
        settings=RankingSettings(settings.cost, settings.by, exponent, beta, target, settings.expected),
        fit=fit,
    )


def _reason(candidate: Candidate, settings: RankingSettings) -> str:
    if candidate.accuracy is None:
        return "its accuracy is unknown: give @data with labels, or @metrics"
    if not candidate.cost(settings.cost):
        return f"its {settings.cost} is unknown"
    if candidate.layers:
        return f"its MSRS is undefined: {candidate.undefined} of {candidate.layers} layers do not vary"
    return "its MSRS was not measured: give @data"

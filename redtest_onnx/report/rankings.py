"""Rankings of candidates as tables."""

from __future__ import annotations

from collections import Counter

from redtest_onnx.ranking.candidate import MsrsOrigin
from redtest_onnx.ranking.rank import Ranking, RankingSettings
from redtest_onnx.ranking.score import SCORES, ScoreName
from redtest_onnx.report.numbers import plural
from redtest_onnx.report.table import Cell, Column, Shown, Table

_ORIGINS: dict[MsrsOrigin, str] = {
    "table": "from the table",
    "model": "measured on the models",
    "weights": "measured with the benchmark's trained weights",
    "trained": "measured on networks trained shortly for it",
    "untrained": "measured on untrained networks",
    "untrained on random images": "measured on untrained networks with random images",
}


def ranking_table(ranking: Ranking, top: int | None = None) -> Table:
    """The first `top` candidates, or all; a star marks the Pareto front."""
    timed = any(row.candidate.latency_ms is not None for row in ranking.rows)
    columns = (
        Column("place", "#", "integer"),
        Column("name", "candidate", "name"),
        Column("accuracy", "accuracy", "share", drop=1, bar=True),
        Column("parameters", "parameters", "count", drop=5),
        Column("macs", "MACs", "count", drop=4),
        *[Column("latency_ms", "latency", "milliseconds", drop=3)] * timed,
        Column("layers", "layers", "integer", drop=7),
        Column("msrs", "MSRS", "decimal", drop=6),
        *(Column(kind, kind, "decimal", drop=2 if kind == ranking.settings.by else 8) for kind in SCORES),
        Column("pareto", "Pareto", drop=1),
    )
    rows = []
    for row in ranking.rows[:top]:
        c = row.candidate
        cells: list[Cell] = [row.place, c.name, c.accuracy, c.parameters, c.macs]
        cells += [c.latency_ms] * timed
        cells += [
            c.layers or None,
            _pairs(c.msrs),
            *(row.scores[kind] for kind in SCORES),
            "*" if row.pareto else "",
        ]
        rows.append(tuple(cells))
    return Table("ranking", "Candidates", columns, tuple(rows))


def means_table(ranking: Ranking) -> Table:
    """What the best candidates by each score are like, side by side."""
    timed = any(row.latency_ms is not None for row in ranking.means)
    tested = any(row.test_accuracy is not None for row in ranking.means)
    columns = (
        Column("score", "best by", "name"),
        Column("candidates", "candidates", "integer"),
        Column("accuracy", "accuracy", "share"),
        Column("accuracy_error", "standard error", "share", drop=5),
        *[Column("test_accuracy", "test accuracy", "share", drop=4)] * tested,
        Column("parameters", "parameters", "count", drop=3),
        Column("macs", "MACs", "count", drop=2),
        *[Column("latency_ms", "latency", "milliseconds", drop=1)] * timed,
        Column("msrs", "MSRS", "decimal"),
    )
    rows = []
    for item in ranking.means:
        cells: list[Cell] = [item.score, len(item.names), item.accuracy, item.accuracy_error]
        cells += [item.test_accuracy] * tested
        cells += [item.parameters, item.macs]
        cells += [item.latency_ms] * timed
        rows.append((*cells, _pairs(item.msrs)))
    title = f"Means of the best by each score, of {plural(ranking.pool, 'candidate')}"
    return Table("means", title, columns, tuple(rows))


def correlation_table(ranking: Ranking) -> Table:
    """How well each measure tells the accuracy."""
    columns = (
        Column("proxy", "measure", "name"),
        Column("spearman", "Spearman", "similarity"),
        Column("kendall", "Kendall", "similarity"),
        Column("pearson", "Pearson", "similarity"),
        Column("points", "candidates", "integer"),
    )
    rows = tuple(
        (Shown(i.proxy, measure_name(i.proxy)), i.spearman, i.kendall, i.pearson, i.points)
        for i in ranking.correlations
    )
    return Table("proxies", "Correlation of each measure with accuracy", columns, rows)


def score_words(settings: RankingSettings, by: ScoreName | None = None) -> str:
    """The formula of a score, by default of the one that orders."""
    by = by or settings.by
    words = f"{by} = accuracy"
    if by != "S1":
        words += f" x ({measure_name(settings.cost)} / {settings.target:.4g})^{settings.exponent:g}"
    if by == "S3":
        words += f" x (MSRS / {settings.expected:g})^-{settings.beta:g}"
    return words


def measure_name(measure: str) -> str:
    """A measure as people write it."""
    return {"latency_ms": "latency", "macs": "MACs", "msrs": "MSRS"}.get(measure, measure)


def origin_words(ranking: Ranking) -> list[str]:
    """What the MSRS of the candidates were measured on, in a sentence; nothing where none is known."""
    counts = Counter(c.msrs_from for c in (row.candidate for row in ranking.rows) if c.msrs is not None)
    told = [
        f"{_ORIGINS[origin]} ({count})" if len(counts) > 1 else _ORIGINS[origin]
        for origin, count in counts.items()
        if origin is not None
    ]
    return [f"MSRS is {', '.join(told)}."] if told else []


def _pairs(msrs: float | None) -> Shown:
    """An MSRS as people read it: tenths of a pair."""
    return Shown(msrs, "-" if msrs is None else f"{msrs:.1f}")

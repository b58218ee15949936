"""Rankings as JSON documents."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from redtest_onnx.documents.base import Document, number, plain, tool

if TYPE_CHECKING:
    from redtest_onnx.ranking.rank import Ranking, RankingEntry


def ranking_document(command: str, ranking: Ranking) -> Document:
    """The ranking for other programs."""
    settings, fit = ranking.settings, ranking.fit
    return {
        "schema": f"redtest-onnx/{command}/1",
        "tool": tool(),
        "ranking": [_row(row) for row in ranking.rows],
        "unranked": [asdict(item) for item in ranking.unranked],
        "settings": asdict(settings),
        "expected_msrs": None if fit is None else asdict(fit),
        "means": [{k: plain(v) for k, v in asdict(item).items()} for item in ranking.means],
        "pool": ranking.pool,
        "proxies": [asdict(item) for item in ranking.correlations],
    }


def _row(row: RankingEntry) -> Document:
    return {
        "place": row.place,
        **{k: number(v) if isinstance(v, float) else v for k, v in asdict(row.candidate).items()},
        "scores": row.scores,
        "pareto": row.pareto,
    }

"""What a tracked search takes down: each candidate, and the ranking at the end."""

from __future__ import annotations

from dataclasses import asdict

from redtest_onnx.ranking.candidate import MeasuredCandidate
from redtest_onnx.ranking.rank import Ranking
from redtest_onnx.report.rankings import ranking_table
from redtest_onnx.report.table_formats import render_table
from redtest_onnx.search.search import Fitness, SearchResult
from redtest_onnx.search.store import Failure, Outcome
from redtest_onnx.tracking.run import TrackedRun

_WORDS = ("name", "key", "worker", "msrs_from")


def note_candidate(run: TrackedRun, fitness: Fitness, number: int, outcome: Outcome) -> None:
    """Note a candidate with its measures, and the score that the strategy raises.

    Args:
        run: who is told.
        fitness: that score.
        number: position among the proposals.
        outcome: what came out.
    """
    values = asdict(outcome)
    if isinstance(outcome, Failure):
        run.candidate(number, values, {})
        return
    words = {name: values.pop(name) for name in _WORDS}
    run.candidate(number, words, {**values, "fitness": fitness(outcome)})


def note_ranking(run: TrackedRun, ranking: Ranking, found: SearchResult) -> None:
    """Note how a search ended: the table of its candidates, and the measures of the best.

    Args:
        run: who is told.
        ranking: the candidates in order.
        found: how the search ended.
    """
    if ranking.rows:
        best = ranking.rows[0].candidate
        assert isinstance(best, MeasuredCandidate)
        run.metrics(
            {
                "evaluated": len(found.outcomes),
                **{f"best/{name}": value for name, value in asdict(best).items() if name not in _WORDS},
            },
            len(found.outcomes),
        )
    run.text("ranking", render_table(ranking_table(ranking), "markdown"))

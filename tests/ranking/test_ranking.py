"""Scores, the expected redundancy, the Pareto front, and the order they give."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redtest_onnx.errors import InputError
from redtest_onnx.ranking.accuracy import BENCHMARK_DATA, BenchmarkData
from redtest_onnx.ranking.candidate import COSTS, Candidate, CostName
from redtest_onnx.ranking.expected import fit_expected
from redtest_onnx.ranking.pareto import pareto_front
from redtest_onnx.ranking.rank import Ranking, RankingSettings, UnrankedEntry, rank_candidates
from redtest_onnx.ranking.score import SCORES, ScoreName, ScoreWeights


def candidate(name: str = "a", **measures: float | None) -> Candidate:
    values: dict[str, float | None] = {
        "accuracy": 0.9,
        "parameters": 1000,
        "macs": 2000,
        "latency_ms": 4.0,
        "msrs": 10.0,
        "layers": 12,
    }
    return Candidate(name=name, **{**values, **measures})  # type: ignore[arg-type]


def objective(**changes: object) -> ScoreWeights:
    base = ScoreWeights("latency", target=2.0, exponent=-0.5, beta=1.0, expected=20.0)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_scores_are_the_formulas() -> None:
    score = objective().score
    assert score(candidate(), "S1") == 0.9
    assert score(candidate(), "S2") == pytest.approx(0.9 * 2**-0.5)
    assert score(candidate(), "S3") == pytest.approx(0.9 * 2**-0.5 * 2)
    assert objective(expected=40.0).score(candidate(), "S3") == pytest.approx(0.9 * 2**-0.5 * 4)


def test_less_than_one_redundant_pair_is_none() -> None:
    score = objective().score
    assert score(candidate(msrs=1e-30), "S3") == score(candidate(msrs=1.0), "S3")


def test_missing_measures_give_no_score() -> None:
    score = objective().score
    assert score(candidate(accuracy=None), "S3") is None
    assert score(candidate(latency_ms=None), "S2") is None
    assert score(candidate(latency_ms=None), "S1") == 0.9
    assert score(candidate(msrs=None), "S3") is None
    assert score(candidate(msrs=None), "S2") is not None


def test_constants_do_not_change_the_order() -> None:
    pool = [candidate(str(k), accuracy=0.5 + 0.04 * k, msrs=1 + k**1.5, latency_ms=1 + k) for k in range(10)]
    one, other = (
        rank_candidates(pool, RankingSettings("latency", target=t, expected=m)) for t, m in ((1, 1), (7, 35))
    )
    assert [row.candidate.name for row in one.rows] == [row.candidate.name for row in other.rows]


MEASURES = st.sampled_from([0.0, 1e-6, 0.3, 0.9, 1.0, 2.5, 40.0, 400.0])


@st.composite
def tables(draw: st.DrawFn) -> list[Candidate]:
    """Tables with many ties, networks of all depths, MSRS below one pair and accuracies of nothing."""
    return [
        candidate(
            str(k),
            accuracy=draw(st.sampled_from([0.0, 0.1, 0.5, 0.9]) | st.floats(0, 1)),
            macs=draw(st.sampled_from([1, 1000, 2000]) | st.integers(1, 10**9)),
            msrs=draw(MEASURES | st.floats(0, 500)),
            layers=draw(st.integers(2, 60)),
        )
        for k in range(draw(st.integers(2, 12)))
    ]


@settings(max_examples=200, deadline=None)
@given(tables(), st.sampled_from(SCORES), st.sampled_from((None, *BENCHMARK_DATA)))
def test_a_dominated_candidate_never_ranks_above_its_dominator(
    pool: list[Candidate], by: ScoreName, benchmark: BenchmarkData | None
) -> None:
    ranking = rank_candidates(pool, RankingSettings("macs", by, benchmark=benchmark))
    assert dominated_above(ranking, "macs") == []


def test_no_committed_table_ranks_a_dominated_candidate_above_its_dominator() -> None:
    files = sorted((Path(__file__).parents[2] / "tools" / "experiments").glob("nas_*.csv"))
    assert files
    for file in files:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        pool = [
            candidate(
                row["name"],
                **{key: float(row[key]) for key in ("accuracy", "parameters", "macs", "latency_ms")},
                msrs=float(row["msrs"]) if row["msrs"] else None,
                layers=int(row["layers"]),
            )
            for row in rows
        ]
        for cost in COSTS:
            ranking = rank_candidates(pool, RankingSettings(cost))
            assert dominated_above(ranking, cost) == []
            assert ranking.rows[0].pareto


def dominated_above(ranking: Ranking, cost: CostName) -> list[tuple[str, str]]:
    """Pairs of candidates of which the first is beaten by the second and ranks above it."""
    values = [
        (-(c.accuracy or 0), c.cost(cost) or 0, c.msrs or 0) for c in (r.candidate for r in ranking.rows)
    ]
    names = [row.candidate.name for row in ranking.rows]
    return [
        (names[i], names[j])
        for i, above in enumerate(values)
        for j, below in enumerate(values[i + 1 :], start=i + 1)
        if below != above and all(b <= a for a, b in zip(above, below, strict=True))
    ]


def test_constants_of_a_benchmark_are_redtests() -> None:
    used = rank_candidates([candidate()], RankingSettings("parameters", benchmark="cifar100")).settings
    assert (used.exponent, used.beta, used.target, used.expected) == (-0.06, 0.8, 150_000, 35)
    own = rank_candidates([candidate()], RankingSettings("parameters", beta=0.1, expected=7)).settings
    assert (own.exponent, own.beta, own.target, own.expected) == (-0.035, 0.1, 1000, 7)


def test_expected_msrs_finds_the_curve_of_a_family() -> None:
    depths = range(4, 40, 4)
    linear = fit_expected([candidate(layers=d, msrs=3 + 2.0 * d + (-1) ** d * 0.1) for d in depths])
    assert len(linear.coefficients) == 2
    quadratic = fit_expected([candidate(layers=d, msrs=0.25 * d**2 + (d % 3) * 0.1) for d in depths])
    assert len(quadratic.coefficients) == 3
    assert quadratic(20) == pytest.approx(100, rel=0.02)
    assert quadratic(400) == quadratic(36)
    assert quadratic.r2 > 0.99


def test_expected_msrs_of_one_depth_is_the_mean() -> None:
    fit = fit_expected([candidate(msrs=m) for m in (1.0, 2.0, 6.0)])
    assert fit.coefficients == pytest.approx((3.0,))
    assert fit(5) == fit(500) == pytest.approx(3.0)
    assert fit_expected([candidate(msrs=2.0, layers=7)])(7) == pytest.approx(2.0)
    with pytest.raises(InputError, match="no candidate has an MSRS"):
        fit_expected([candidate(msrs=None)])


def test_pareto_front_holds_what_nothing_beats() -> None:
    pool = [
        candidate("best", accuracy=0.9, macs=100, msrs=5),
        candidate("cheap", accuracy=0.8, macs=50, msrs=5),
        candidate("lean", accuracy=0.8, macs=100, msrs=1),
        candidate("beaten", accuracy=0.8, macs=100, msrs=5),
        candidate("unknown", accuracy=1.0, macs=None, msrs=0),
    ]
    assert pareto_front(pool, "macs") == {0, 1, 2}
    assert pareto_front([pool[0], pool[0]], "macs") == {0, 1}
    assert pareto_front([pool[4]], "macs") == frozenset()


def test_what_can_not_be_ranked_is_named() -> None:
    pool = [
        candidate("good"),
        candidate("constant", msrs=None, layers=6, undefined=5),
        candidate("unlabelled", accuracy=None),
        candidate("unmeasured", msrs=None, layers=0),
    ]
    ranking = rank_candidates(pool, RankingSettings(), [UnrankedEntry("broken", "empty")])
    assert [row.candidate.name for row in ranking.rows] == ["good"]
    reasons = {item.name: item.reason for item in ranking.unranked}
    assert reasons["broken"] == "empty"
    assert "5 of 6 layers do not vary" in reasons["constant"]
    assert "labels" in reasons["unlabelled"]
    assert "its MSRS is unknown" in reasons["unmeasured"]
    assert len(rank_candidates(pool, RankingSettings(by="S2")).rows) == 3


def test_no_candidate_is_an_error() -> None:
    with pytest.raises(InputError, match="no candidate can be ranked"):
        rank_candidates([], RankingSettings(), [UnrankedEntry("broken", "empty")])
    with pytest.raises(InputError, match="would reward"):
        rank_candidates([candidate()], RankingSettings(exponent=0.1))

"""Scores, the expected redundancy, the Pareto front, and the order they give."""

from __future__ import annotations

from dataclasses import replace

import pytest

from redtest_onnx.errors import InputError
from redtest_onnx.ranking.candidate import Candidate
from redtest_onnx.ranking.expected import fit_expected
from redtest_onnx.ranking.pareto import pareto_front
from redtest_onnx.ranking.rank import RankingSettings, UnrankedEntry, rank_candidates
from redtest_onnx.ranking.score import ScoreWeights


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
    base = ScoreWeights("latency", target=2.0, exponent=-0.5, beta=1.0, expected=lambda layers: 20.0)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_scores_are_the_formulas() -> None:
    score = objective().score
    assert score(candidate(), "S1") == 0.9
    assert score(candidate(), "S2") == pytest.approx(0.9 * 2**-0.5)
    assert score(candidate(), "S3") == pytest.approx(0.9 * 2**-0.5 * 2)
    deeper = objective(expected=lambda layers: 40.0 if layers > 12 else 20.0).score
    assert deeper(candidate(layers=20), "S3") == pytest.approx(2 * (score(candidate(), "S3") or 0))


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
    assert "not measured" in reasons["unmeasured"]
    assert len(rank_candidates(pool, RankingSettings(by="S2")).rows) == 3


def test_no_candidate_is_an_error() -> None:
    with pytest.raises(InputError, match="no candidate can be ranked"):
        rank_candidates([], RankingSettings(), [UnrankedEntry("broken", "empty")])
    with pytest.raises(InputError, match="would reward"):
        rank_candidates([candidate()], RankingSettings(exponent=0.1))

"""Choices, means and correlations of whole tables against a computation of their own, in plain Python."""

from __future__ import annotations

import csv
import math
import random
from pathlib import Path
from statistics import fmean

import pytest

from redtest_onnx.ranking.accuracy import BENCHMARK_DATA, BenchmarkData
from redtest_onnx.ranking.candidate import COSTS, Candidate, CostName
from redtest_onnx.ranking.means import number_of_best
from redtest_onnx.ranking.rank import RankingSettings, in_order, rank_candidates
from redtest_onnx.ranking.score import SCORES, ScoreWeights
from redtest_onnx.ranking.table import AccuracyTable

TABLES = sorted((Path(__file__).parents[2] / "tools" / "experiments").glob("nas_*.csv"))
COLUMNS: dict[CostName, str] = {"latency": "latency_ms", "parameters": "parameters", "macs": "macs"}
# w and beta of the paper, by data set and cost (arXiv 2411.10507, its experiments on search).
PAPER = {
    "cifar10": {"latency": (-0.2, 0.1), "parameters": (-0.035, 0.4), "macs": (-0.03, 0.15)},
    "cifar100": {"latency": (-0.24, 0.2), "parameters": (-0.06, 0.8), "macs": (-0.06, 0.4)},
    "ImageNet16-120": {"latency": (-0.2, 0.5), "parameters": (-0.073, 0.2), "macs": (-0.073, 0.6)},
}
TARGETS = {"latency": 10.0, "parameters": 0.15e6, "macs": 10e6}


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as lines:
        return [row for row in csv.DictReader(lines) if row["accuracy"]]


def ranks(values: list[float]) -> list[float]:
    """Ranks from 1 on; equal values share their mean rank."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]


def pearson(xs: list[float], ys: list[float]) -> float:
    mx, my = fmean(xs), fmean(ys)
    sxy = math.fsum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True))
    sxx, syy = math.fsum((x - mx) ** 2 for x in xs), math.fsum((y - my) ** 2 for y in ys)
    return sxy / math.sqrt(sxx * syy)


def kendall(xs: list[float], ys: list[float]) -> float:
    """Tau b from all pairs."""
    agree = 0
    tied = [0, 0]
    pairs = [(i, j) for i in range(len(xs)) for j in range(i)]
    for i, j in pairs:
        a, b = (xs[i] > xs[j]) - (xs[i] < xs[j]), (ys[i] > ys[j]) - (ys[i] < ys[j])
        agree += a * b
        tied[0] += a == 0
        tied[1] += b == 0
    return agree / math.sqrt((len(pairs) - tied[0]) * (len(pairs) - tied[1]))


def score(kind: str, row: dict[str, str], benchmark: BenchmarkData, cost: CostName) -> float:
    w, beta = PAPER[benchmark][cost]
    value = float(row["accuracy"])
    if kind != "S1":
        value *= (float(row[COLUMNS[cost]]) / TARGETS[cost]) ** w
    return value * (max(float(row["msrs"]), 1) / 35) ** -beta if kind == "S3" else value


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("benchmark", BENCHMARK_DATA)
def test_choices_and_means_of_committed_tables(table: Path, benchmark: BenchmarkData) -> None:
    pool = [row for row in rows_of(table) if row["msrs"]]
    for cost in COSTS:
        w, beta = PAPER[benchmark][cost]

        settings = RankingSettings(cost, benchmark=benchmark, best=5)
        found = rank_candidates(AccuracyTable.read(table).candidates(), settings)
        used = found.settings
        assert (used.exponent, used.beta, used.target, used.expected) == (w, beta, TARGETS[cost], 35)
        assert found.pool == len(pool)
        assert [item.score for item in found.means] == list(SCORES)
        for item in found.means:
            scores = sorted((score(item.score, row, benchmark, cost) for row in pool), reverse=True)
            by_name = {row["name"]: row for row in pool}
            chosen = [by_name[name] for name in item.names]
            assert [score(item.score, row, benchmark, cost) for row in chosen] == pytest.approx(scores[:5])
            for column in ("accuracy", "test_accuracy", "latency_ms", "parameters", "macs", "msrs"):
                assert getattr(item, column) == pytest.approx(fmean(float(row[column]) for row in chosen))


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_correlations_of_committed_tables(table: Path) -> None:
    found = rank_candidates(AccuracyTable.read(table).candidates(), RankingSettings()).correlations
    assert {"parameters", "macs", "latency_ms", "synflow", "naswot", "msrs"} <= {item.proxy for item in found}
    for item in found:
        known = [
            (float(row[item.proxy]), float(row["accuracy"])) for row in rows_of(table) if row[item.proxy]
        ]
        xs, ys = [x for x, _ in known], [y for _, y in known]
        assert item.points == len(known)
        assert item.spearman == pytest.approx(pearson(ranks(xs), ranks(ys)))
        assert item.kendall == pytest.approx(kendall(xs, ys))
        assert item.pearson == pytest.approx(pearson(xs, ys))


def test_means_choose_among_the_same_candidates(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    lines = ["a,0.99,10,", "b,0.9,10,90", "c,0.8,10,2"]
    path.write_text("name,accuracy,macs,msrs\n" + "\n".join(lines) + "\n", encoding="utf-8")
    found = rank_candidates(AccuracyTable.read(path).candidates(), RankingSettings(by="S1", beta=1.0))
    assert [row.candidate.name for row in found.rows] == ["a", "b", "c"]
    assert [(item.score, item.names) for item in found.means] == [
        ("S1", ("b",)),
        ("S2", ("b",)),
        ("S3", ("c",)),
    ]
    assert found.pool == 2


def test_means_are_over_a_part_of_the_candidates() -> None:
    assert [number_of_best(pool, None) for pool in (1, 3, 25, 300, 11_715)] == [1, 1, 2, 20, 20]
    assert number_of_best(3, 5) == 3


def test_no_random_table_of_ten_thousand_puts_a_beaten_candidate_first() -> None:
    """Neither the first place nor any other: checked for every pair of candidates."""
    rng = random.Random(0)
    few = [0.0, 0.3, 1.0, 2.0, 40.0]
    wrong = 0
    for k in range(10_000):
        pool = [
            Candidate(
                name=str(i),
                accuracy=rng.choice([0.1, 0.5, 0.9, rng.random()]),
                macs=rng.choice([10, 1000, rng.randint(1, 10**9)]),
                msrs=rng.choice([*few, rng.uniform(0, 500)]),
                layers=rng.randint(2, 60),
            )
            for i in range(6)
        ]
        benchmark = BENCHMARK_DATA[k % 3]
        w, beta = PAPER[benchmark]["macs"]
        weights = ScoreWeights("macs", 10.0 ** rng.uniform(0, 8), w, beta, 35.0)
        scored = [({kind: weights.score(c, kind) for kind in SCORES}, c) for c in pool]
        order = [c for _, c in in_order(scored, RankingSettings("macs"))]
        values = [(-(c.accuracy or 0), c.macs or 0, c.msrs or 0) for c in order]
        wrong += sum(
            below != above and all(b <= a for a, b in zip(above, below, strict=True))
            for i, above in enumerate(values)
            for below in values[i + 1 :]
        )
    assert wrong == 0

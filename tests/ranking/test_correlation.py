"""Rank correlations of measures with accuracy."""

from __future__ import annotations

import pytest

from redtest_onnx.ranking.candidate import MeasuredCandidate
from redtest_onnx.ranking.correlation import correlations


def candidate(k: int, **measures: float | None) -> MeasuredCandidate:
    values = {"parameters": 10, "depth": 3, "accuracy": 0.1 * k, **measures}
    return MeasuredCandidate(name=str(k), key=str(k), **values)  # type: ignore[arg-type]


def test_order_counts_and_unknown_values_do_not() -> None:
    pool = [candidate(k, macs=k**3, naswot=-k, synflow=None if k == 2 else k % 3) for k in range(6)]
    found = {item.proxy: item for item in correlations(pool)}
    assert set(found) == {"macs", "naswot", "synflow"}  # the others are unknown, or the same everywhere
    assert found["macs"].spearman == pytest.approx(1)
    assert found["naswot"].kendall == pytest.approx(-1)
    assert found["synflow"].points == 5
    assert -1 < found["synflow"].spearman < 1


def test_too_few_candidates_tell_nothing() -> None:
    assert correlations([candidate(k, macs=k) for k in range(2)]) == ()

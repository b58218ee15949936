"""How well cheap measures tell the accuracy of candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from redtest_onnx.ranking.candidate import MeasuredCandidate

PROXIES = ("parameters", "macs", "latency_ms", "depth", "synflow", "jacob_cov", "naswot", "msrs")
"""The first ones are baselines that every other must beat; MSRS needs trained candidates."""


@dataclass(frozen=True)
class Correlation:
    """Rank correlation of a measure with accuracy.

    Attributes:
        proxy: the measure.
        spearman: Spearman's rho.
        kendall: Kendall's tau b.
        points: candidates for which both are known.
    """

    proxy: str
    spearman: float
    kendall: float
    points: int


def correlations(candidates: Sequence[MeasuredCandidate], against: str = "accuracy") -> list[Correlation]:
    """Rank correlations of every proxy that varies over at least three candidates."""
    found = []
    for proxy in PROXIES:
        rows = [(getattr(c, proxy), getattr(c, against)) for c in candidates]
        known = [(x, y) for x, y in rows if x is not None and y is not None]
        if len(known) < 3:
            continue
        xs, ys = np.array(known, dtype=np.float64).T
        if np.ptp(xs) == 0 or np.ptp(ys) == 0:
            continue
        rho, tau = stats.spearmanr(xs, ys).statistic, stats.kendalltau(xs, ys).statistic
        found.append(Correlation(proxy, float(rho), float(tau), len(known)))
    return found

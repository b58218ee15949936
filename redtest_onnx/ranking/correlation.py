"""How well cheap measures tell the accuracy of candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redtest_onnx.ranking.candidate import Candidate

PROXIES = ("parameters", "macs", "latency_ms", "depth", "layers", "synflow", "jacob_cov", "naswot", "msrs")
"""The first ones are baselines that every other must beat; MSRS needs trained candidates."""


@dataclass(frozen=True)
class Correlation:
    """Correlation of a measure with accuracy.

    Attributes:
        proxy: the measure.
        spearman: Spearman's rho, of ranks.
        kendall: Kendall's tau b, of the order of pairs.
        pearson: Pearson's r, of the values themselves.
        points: candidates for which both are known.
    """

    proxy: str
    spearman: float
    kendall: float
    pearson: float
    points: int


def correlations(candidates: Sequence[Candidate], against: str = "accuracy") -> tuple[Correlation, ...]:
    """Correlations of every proxy that varies over at least three candidates.

    Args:
        candidates: with their measures.
        against: the attribute that the proxies are held against.
    """
    from scipy import stats

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
        found.append(Correlation(proxy, float(rho), float(tau), _pearson(xs, ys), len(known)))
    return tuple(found)


def _pearson(
    xs: np.ndarray[tuple[int], np.dtype[np.float64]], ys: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> float:
    """Pearson's r of two columns that vary; scaled first, since squares of synflow exceed float64."""
    x, y = (column / np.abs(column).max() for column in (xs, ys))
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))

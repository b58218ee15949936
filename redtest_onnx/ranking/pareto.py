"""Candidates that no other beats in everything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from redtest_onnx.ranking.candidate import Candidate, CostName


def pareto_front(candidates: Sequence[Candidate], cost: CostName) -> frozenset[int]:
    """Indices of the candidates that none equals or beats in accuracy, cost and MSRS, and beats in one.

    Candidates with an unknown measure are left out.
    """
    rows = [(i, c.accuracy, c.cost(cost), c.msrs) for i, c in enumerate(candidates)]
    known = [
        (i, -accuracy, spent, score)
        for i, accuracy, spent, score in rows
        if accuracy is not None and spent is not None and score is not None
    ]
    if not known:
        return frozenset()
    values = np.array([row[1:] for row in known])
    beaten = [
        bool(np.any(np.all(values <= value, axis=1) & np.any(values < value, axis=1))) for value in values
    ]
    return frozenset(row[0] for row, worse in zip(known, beaten, strict=True) if not worse)

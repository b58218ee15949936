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
    # What beats a candidate comes before it in this order, and is on the front or beaten by one that is.
    known.sort(key=lambda row: row[1:])
    front: list[tuple[float, float, float]] = []
    found = []
    for i, *value in known:
        others = np.array(front).reshape(-1, 3)
        if not bool(np.any(np.all(others <= value, axis=1) & np.any(others < value, axis=1))):
            front.append((value[0], value[1], value[2]))
            found.append(i)
    return frozenset(found)

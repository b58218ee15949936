"""Scores that choose among candidates: accuracy alone, with cost, and with redundancy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from redtest_onnx.ranking.candidate import Candidate, CostName

ScoreName = Literal["S1", "S2", "S3"]
SCORES: tuple[ScoreName, ...] = get_args(ScoreName)

FEWEST_PAIRS = 1.0
"""MSRS is a soft count of pairs; below one pair it says that there is none, not how little that is."""


@dataclass(frozen=True)
class ScoreWeights:
    """How cost and redundancy weigh against accuracy.

    S1 = accuracy; S2 = accuracy (cost / T)^w (MnasNet, arXiv 1807.11626, equation 2);
    S3 = S2 (MSRS / M)^-beta. The last is our reading of RedTest's Algorithm 2, whose printed form is lost.

    Attributes:
        cost: which cost.
        target: T in the unit of the cost; scales all scores alike and does not change their order.
        exponent: w, at most 0.
        beta: weight of redundancy, at least 0.
        expected: M by number of layers; a constant scales all scores alike.
    """

    cost: CostName
    target: float
    exponent: float
    beta: float
    expected: Callable[[int], float]

    def score(self, candidate: Candidate, kind: ScoreName) -> float | None:
        """The score of a candidate; None where one of its measures is unknown."""
        accuracy, cost, msrs = candidate.accuracy, candidate.cost(self.cost), candidate.msrs
        if kind == "S1" or accuracy is None:
            return accuracy
        if not cost:
            return None
        with_cost = accuracy * math.pow(cost / self.target, self.exponent)
        if kind == "S2":
            return with_cost
        if msrs is None:
            return None
        expected = max(self.expected(candidate.layers), FEWEST_PAIRS)
        return with_cost * math.pow(max(msrs, FEWEST_PAIRS) / expected, -self.beta)


@dataclass(frozen=True)
class Weights:
    """w and beta for one kind of cost."""

    exponent: float
    beta: float


PAPER_WEIGHTS: dict[CostName, Weights] = {
    "latency": Weights(-0.2, 0.1),
    "parameters": Weights(-0.035, 0.4),
    "macs": Weights(-0.03, 0.15),
}
"""RedTest's for CIFAR-10."""

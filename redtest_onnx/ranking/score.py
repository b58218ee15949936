"""Scores that choose among candidates: accuracy alone, with cost, and with redundancy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from redtest_onnx.ranking.accuracy import BenchmarkData
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

    M is a constant, as in RedTest: a score falls where accuracy falls, cost rises or MSRS rises, so that no
    candidate scores above one that is at least as good in all three. An M that grows with the depth would
    excuse the redundancy of deep networks and break that.

    Attributes:
        cost: which cost.
        target: T in the unit of the cost; scales all scores alike and does not change their order.
        exponent: w, at most 0.
        beta: weight of redundancy, at least 0.
        expected: M, an MSRS; scales all scores alike and does not change their order.
    """

    cost: CostName
    target: float
    exponent: float
    beta: float
    expected: float

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
        return with_cost * math.pow(max(msrs, FEWEST_PAIRS) / self.expected, -self.beta)


@dataclass(frozen=True)
class PaperConstants:
    """w, beta and T for one kind of cost; T in ms, parameters or multiply-accumulates."""

    exponent: float
    beta: float
    target: float


PAPER_EXPECTED = 35.0
"""M of RedTest, on all benchmarks."""

PAPER_CONSTANTS: dict[BenchmarkData, dict[CostName, PaperConstants]] = {
    "cifar10": {
        "latency": PaperConstants(-0.2, 0.1, 10.0),
        "parameters": PaperConstants(-0.035, 0.4, 0.15e6),
        "macs": PaperConstants(-0.03, 0.15, 10e6),
    },
    "cifar100": {
        "latency": PaperConstants(-0.24, 0.2, 10.0),
        "parameters": PaperConstants(-0.06, 0.8, 0.15e6),
        "macs": PaperConstants(-0.06, 0.4, 10e6),
    },
    "ImageNet16-120": {
        "latency": PaperConstants(-0.2, 0.5, 10.0),
        "parameters": PaperConstants(-0.073, 0.2, 0.15e6),
        "macs": PaperConstants(-0.073, 0.6, 10e6),
    },
}
"""RedTest's, by the data set of NATS-Bench (arXiv 2411.10507, section on Algorithm 2)."""

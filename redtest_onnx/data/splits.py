"""Which samples serve which purpose: to fit to, to choose by, to judge on. One seeded order decides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from redtest_onnx.arrays import Indices
from redtest_onnx.data.dataset import Dataset, Subset

_MOST_HOLDOUT = 512
_MOST_FITTED = 2048


@dataclass(frozen=True, eq=False)
class Splits:
    """Which samples of a data set serve which purpose.

    Attributes:
        fit: to fit weights to; none of them is in the others.
        choose: to choose between candidates by: plans, repairs.
        judge: to report the quality of what was chosen on; `of` takes the same, for want of others.
    """

    fit: Indices
    choose: Indices
    judge: Indices

    @property
    def apart(self) -> bool:
        """Whether the samples that judge choose nothing, so that figures on them are not too good."""
        return not np.intersect1d(self.choose, self.judge).size

    @classmethod
    def of(cls, data: Dataset, seed: int) -> Splits:
        """The parts of a data set's seeded order."""
        held = holdout_indices(data, seed)
        return cls(fit_indices(data, seed), held, held)


def sample_indices(data: Dataset, count: int, seed: int) -> Indices:
    """The first `count` samples of a seeded order, each once."""
    order: Indices = np.random.default_rng(seed).permutation(len(data)).astype(np.int64)
    return order[:count]


def fit_indices(data: Dataset, seed: int) -> Indices:
    """Samples to fit to: the beginning of the seeded order, none of which is held out."""
    order = sample_indices(data, len(data), seed)
    return order[: len(order) - len(holdout_indices(data, seed))][:_MOST_FITTED]


def holdout_indices(data: Dataset, seed: int) -> Indices:
    """Samples that judge candidates: the end of the seeded order, a third of few samples, a fifth of many.

    Of fewer than eight, half of them.
    """
    order: Indices = sample_indices(data, len(data), seed)
    count = max(len(order) // 5, min(len(order) // 3, _MOST_HOLDOUT // 2), 4)
    return order[-min(_MOST_HOLDOUT, count, max(len(order) // 2, 1)) :]


def without_holdout(data: Dataset, seed: int) -> Dataset:
    """The samples that take no part in judging candidates."""
    rest = np.setdiff1d(sample_indices(data, len(data), seed), holdout_indices(data, seed))
    return Subset(data, rest)

"""Which samples serve which purpose: to fit to, to choose by, to judge on. One seeded order decides."""

from __future__ import annotations

import numpy as np

from redtest_onnx.data.batching import Indices
from redtest_onnx.data.dataset import Dataset, Subset

_MOST_HOLDOUT = 512
_MOST_FITTED = 2048


def sample_indices(data: Dataset, count: int, seed: int) -> Indices:
    """The first `count` samples of a seeded order, each once."""
    order: Indices = np.random.default_rng(seed).permutation(len(data)).astype(np.int64)
    return order[:count]


def fit_indices(data: Dataset, seed: int) -> Indices:
    """Samples to fit to: the beginning of the seeded order, none of which is held out."""
    order = sample_indices(data, len(data), seed)
    return order[: len(order) - len(holdout_indices(data, seed))][:_MOST_FITTED]


def holdout_indices(data: Dataset, seed: int) -> Indices:
    """Samples that judge candidates: the end of the seeded order, a third of few samples, a fifth of many."""
    order: Indices = sample_indices(data, len(data), seed)
    count = max(len(order) // 5, min(len(order) // 3, _MOST_HOLDOUT // 2), 4)
    return order[-min(_MOST_HOLDOUT, count) :]


def without_holdout(data: Dataset, seed: int) -> Dataset:
    """The samples that take no part in judging candidates."""
    rest = np.setdiff1d(sample_indices(data, len(data), seed), holdout_indices(data, seed))
    return Subset(data, rest)

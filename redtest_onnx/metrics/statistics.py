"""How far a similarity can be trusted: its error over batches, its null, and who carries it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from redtest_onnx.arrays import Float64s, Indices
from redtest_onnx.errors import InputError
from redtest_onnx.metrics.arrays import Array, namespace, to_numpy
from redtest_onnx.metrics.cka import Estimator, cka, cross_cka
from redtest_onnx.metrics.msrs import ALPHA, THRESHOLD, msrs
from redtest_onnx.metrics.packed import PackedGrams

# Layers permuted per repeat: tell the null well enough, whatever the number of layers.
_PERMUTED_LAYERS = 4

_TOP_SHARE = 0.01

_DOMINANCE = 10


@dataclass(frozen=True, eq=False)
class StandardErrors:
    """Standard errors of a similarity matrix and of its MSRS over batches.

    Attributes:
        cka: [L, L]; NaN where fewer than two batches tell.
        msrs: NaN where fewer than two batches tell.
        batches: how many there were.
    """

    cka: Float64s
    msrs: float
    batches: int


@dataclass(frozen=True, eq=False)
class ShuffledNull:
    """CKA of pairs of different layers whose samples do not belong together.

    Attributes:
        mean: over all pairs and permutations; about 0 for the unbiased estimator.
        quantile95: the similarity that 95 % of such pairs stay below.
        repeats: permutations drawn.
    """

    mean: float
    quantile95: float
    repeats: int


def standard_errors(
    hsic_batches: Array,
    estimator: Estimator = "minibatch",
    *,
    alpha: float = ALPHA,
    threshold: float = THRESHOLD,
    gate: bool = False,
) -> StandardErrors:
    """Standard errors of `combine(hsic_batches, estimator)` and of its MSRS.

    `paper` averages one value a batch, so that the error is their standard deviation over the square root of
    their number. `minibatch` is a ratio of sums: its error is the jackknife's, with one batch left out at a
    time (Efron and Stein 1981).

    Args:
        hsic_batches: [B, L, L].
        estimator: as in `combine`.
        alpha: as in `msrs`.
        threshold: as in `msrs`.
        gate: as in `msrs`.

    Raises:
        InputError: no batches, or as `msrs`.
    """
    xp, batches = namespace(hsic_batches), len(hsic_batches)
    if batches == 0:
        raise InputError("no batch was measured", hint="give at least four samples")
    if estimator == "paper":
        replicates, error = to_numpy(cka(hsic_batches)), _error_of_mean
    else:
        others = xp.nansum(hsic_batches, axis=0) - xp.nan_to_num(hsic_batches)
        replicates, error = to_numpy(cka(others)), _jackknife_error
    scores = np.array([msrs(matrix, alpha, threshold, gate).value for matrix in replicates])
    return StandardErrors(error(replicates), float(error(scores)), batches)


def shuffled_null(centred: PackedGrams, rng: np.random.Generator, repeats: int = 5) -> ShuffledNull:
    """CKA of every layer with other ones whose samples are permuted; of many layers with a few, drawn anew.

    Args:
        centred: the layers.
        rng: draws the permutations.
        repeats: permutations.

    Raises:
        InputError: fewer than one repeat.
    """
    if repeats < 1:
        raise InputError(f"the shuffled null needs at least one permutation, got {repeats}")
    layers = len(centred.rows)
    drawn = [_drawn(rng, centred.samples, layers) for _ in range(repeats)]
    permuted = centred.permuted(drawn)
    own = centred.own_hsic()
    partners = np.concatenate([some for some, _ in drawn])
    similarity = to_numpy(cross_cka(centred.hsic(permuted), own, own[partners]))
    null = np.full((repeats, layers, layers), np.nan)
    null[np.repeat(np.arange(repeats), len(drawn[0][0])), :, partners] = similarity.T
    null[:, np.arange(layers), np.arange(layers)] = np.nan
    return ShuffledNull(*_mean_and_quantile(null), repeats)


def norm_shares(norms: Float64s) -> tuple[Float64s, tuple[int, ...]]:
    """What the top 1 % of samples by norm (at least one) make up of each layer (Nguyen et al. 2022).

    They dominate a layer where they carry ten times what they would if all norms were equal, or half of
    everything.

    Args:
        norms: [L, n] squared norms of the centred features.

    Returns:
        Their share [L], NaN for a layer that does not vary; and the indices of the layers they dominate.
    """
    n = norms.shape[1]
    count = _top_samples(n)
    total = norms.sum(axis=1)
    share = np.partition(norms, n - count, axis=1)[:, n - count :].sum(axis=1) / np.where(
        total > 0, total, np.nan
    )
    return share, tuple(int(i) for i in np.flatnonzero(share > min(_DOMINANCE * count / n, 0.5)))


def largest_samples(norms: Float64s, dominated: tuple[int, ...]) -> Indices:
    """The samples that dominate any of the layers, as `norm_shares` found them.

    Args:
        norms: [L, n] squared norms of the centred features.
        dominated: indices of layers.
    """
    n = norms.shape[1]
    order = np.argsort(norms[list(dominated)], axis=1)
    return np.unique(order[:, n - _top_samples(n) :])


def _top_samples(n: int) -> int:
    return max(1, int(n * _TOP_SHARE))


def _error_of_mean(values: Float64s) -> Float64s:
    """Standard error of the mean over the first axis, of the values that are defined."""
    count = np.isfinite(values).sum(axis=0)
    mean = np.nansum(values, axis=0) / np.maximum(count, 1)
    squares = np.nansum((values - mean) ** 2, axis=0)
    error: Float64s = np.sqrt(squares / np.where(count > 1, count * (count - 1), np.nan))
    return error


def _jackknife_error(values: Float64s) -> Float64s:
    """Standard error of an estimate from its values with one batch left out, on the first axis."""
    error: Float64s = np.sqrt((len(values) - 1) * values.var(axis=0))
    return error


def _drawn(rng: np.random.Generator, samples: int, layers: int) -> tuple[Indices, Indices]:
    """An order of the samples, and before it the layers that take it: all, or a few of many."""
    order = rng.permutation(samples)
    few = layers > _PERMUTED_LAYERS
    return rng.choice(layers, _PERMUTED_LAYERS, replace=False) if few else np.arange(layers), order


def _mean_and_quantile(values: Float64s) -> tuple[float, float]:
    """Mean and 95 % quantile of the values that are defined."""
    defined = values[np.isfinite(values)]
    if defined.size == 0:
        return math.nan, math.nan
    return float(defined.mean()), float(np.quantile(defined, 0.95))

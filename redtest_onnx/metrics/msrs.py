"""Model-level redundancy: the structural redundancy score MSRS of a similarity matrix (RedTest)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from redtest_onnx.errors import InputError
from redtest_onnx.metrics.arrays import Array, namespace, to_numpy

ALPHA = 100.0
THRESHOLD = 0.8


@dataclass(frozen=True)
class Msrs:
    """A redundancy score and what it was summed over.

    Attributes:
        value: about the number of layer pairs above the threshold; NaN where no pair is defined.
        pairs: pairs that count.
        undefined: pairs left out because one of their layers has no defined similarity.
    """

    value: float
    pairs: int
    undefined: int


@dataclass(frozen=True)
class MsrsOverBatches:
    """MSRS measured batch by batch.

    Attributes:
        mean: over the batches in which any pair is defined; NaN where there is none.
        std: standard deviation over the same batches (ddof 1); NaN for fewer than two.
        per_batch: the score of each batch.
    """

    mean: float
    std: float
    per_batch: tuple[Msrs, ...]


def pair_scores(
    similarity: Array, alpha: float = ALPHA, threshold: float = THRESHOLD, gate: bool = False
) -> Array:
    """Soft count of similarity above a threshold: (1 + tanh(alpha (s - threshold))) / 2.

    Args:
        similarity: [...] in [-1, 1].
        alpha: steepness; the larger, the closer to a plain count. Infinite is that count: 1 above the
            threshold, 0 at and below it.
        threshold: the similarity that scores one half.
        gate: score 0 at and below the threshold (RedTest, algorithm 1, as printed).

    Returns:
        [...] float64 in [0, 1], NaN where the similarity is.

    Raises:
        InputError: alpha is not positive, or the threshold is not finite.
    """
    if not alpha > 0:
        raise InputError(
            f"alpha must be positive, got {alpha}", hint="100 is the papers' value, inf counts pairs"
        )
    if not math.isfinite(threshold):
        raise InputError(f"the threshold must be a number, got {threshold}", hint="0.8 is a usual value")
    xp = namespace(similarity)
    if math.isinf(alpha):
        return xp.where(xp.isnan(similarity), xp.nan, (similarity > threshold).astype(xp.float64))
    with np.errstate(over="ignore"):
        scores = (1 + xp.tanh(alpha * (similarity.astype(xp.float64) - threshold))) / 2
    return xp.where(similarity <= threshold, 0.0, scores) if gate else scores


def msrs(cka: Array, alpha: float = ALPHA, threshold: float = THRESHOLD, gate: bool = False) -> Msrs:
    """Sum the pair scores over i < j (RedTest, section 3); undefined pairs are left out and counted.

    Args:
        cka: [L, L] similarity of all layers, NaN where undefined.
        alpha: see `pair_scores`.
        threshold: see `pair_scores`; 0.8 with skip connections, 0.7 for plain chains.
        gate: see `pair_scores`.

    Raises:
        InputError: fewer than two layers, a matrix that is not square, or parameters out of range.
    """
    if cka.ndim != 2 or cka.shape[0] != cka.shape[1]:
        raise InputError(f"a similarity matrix must be square, got shape {tuple(cka.shape)}")
    if len(cka) < 2:
        raise InputError(
            f"redundancy needs at least two layers, got {len(cka)}",
            hint="select more layers, for example all of them",
        )
    scores = pair_scores(to_numpy(cka)[np.triu_indices(len(cka), 1)], alpha, threshold, gate)
    defined = scores[~np.isnan(scores)]
    value = float(defined.sum()) if defined.size else math.nan
    return Msrs(value, defined.size, scores.size - defined.size)


def msrs_batches(
    per_batch_cka: Array, alpha: float = ALPHA, threshold: float = THRESHOLD, gate: bool = False
) -> MsrsOverBatches:
    """MSRS of each batch, their mean and spread (the paper's protocol).

    Args:
        per_batch_cka: [B, L, L].
        alpha: see `pair_scores`.
        threshold: see `pair_scores`.
        gate: see `pair_scores`.

    Raises:
        InputError: as `msrs`.
    """
    per_batch = tuple(msrs(cka, alpha, threshold, gate) for cka in per_batch_cka)
    values = np.array([score.value for score in per_batch if score.pairs])
    return MsrsOverBatches(
        mean=float(values.mean()) if values.size else math.nan,
        std=float(values.std(ddof=1)) if values.size > 1 else math.nan,
        per_batch=per_batch,
    )

"""Centered kernel alignment (CKA) of all pairs of layers from one matrix product.

Similarities are neither clamped nor damped by an epsilon: that of unbiased HSIC lies in [-1, 1] and scatters
around 0 for unrelated layers.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from redtest_onnx.errors import InputError
from redtest_onnx.metrics.arrays import Array, namespace

Estimator: TypeAlias = Literal["minibatch", "paper", "exact", "biased"]

# Centring a constant layer's Gram leaves the float32 rounding of the values it was made from.
CONSTANT = 1e-5

UNBIASED_SAMPLES = 4
"""The fewest samples for which the unbiased estimator exists."""

BIASED_SAMPLES = 2
"""The fewest samples for which the biased estimator exists."""


def hsic_of_sums(products: Array, sums: Array, other_sums: Array, *, unbiased: bool = True) -> Array:
    """HSIC of all pairs of layers from inner products of their Gram matrices as they are.

    Args:
        products: [L, M] <K, L>; unbiased, the diagonals of both count as 0.
        sums: [L, n] of the rows of K, likewise.
        other_sums: [M, n] of those of L.
        unbiased: which estimator, see `centred_products`.

    Returns:
        [L, M] float64.
    """
    n, totals = sums.shape[1], (sums.sum(axis=1)[:, None], other_sums.sum(axis=1))
    hsic = centred_products(products, sums @ other_sums.T, totals, n, unbiased=unbiased)
    hsic *= hsic_scale(n, unbiased=unbiased)
    return hsic


def centred_products(
    products: Array, dots: Array, totals: tuple[Array, Array], samples: int, *, unbiased: bool
) -> Array:
    """<K~, L~> of centred Gram matrices, from K and L as they are: <K, L> - a r_K . r_L + b S_K S_L.

    With r = K 1 and S = 1^T K 1. Without bias diagonals count as 0, a = 2 / (n-2) and b = 1 / ((n-1)(n-2))
    (U-centring; Szekely and Rizzo 2014, definition 2, Song et al. 2012, equation 4). With bias a = 2 / n and
    b = 1 / n^2 (H K H with H = I - 11^T / n; Gretton et al. 2005).

    Args:
        products: <K, L>, of any shape.
        dots: r_K . r_L, of the same.
        totals: S_K and S_L, which broadcast to it.
        samples: n.
        unbiased: which centring.
    """
    n = samples
    a, b = (2 / (n - 2), 1 / ((n - 1) * (n - 2))) if unbiased else (2 / n, 1 / n**2)
    return products - a * dots + b * totals[0] * totals[1]


def check_alike(samples: int, other: int) -> None:
    """Refuse layers measured on different numbers of samples."""
    if other != samples:
        raise InputError(
            f"layers measured on {samples} and on {other} samples can't be compared",
            hint="feed both models the same samples in the same order",
        )


def hsic_scale(samples: int, *, unbiased: bool) -> float:
    """What makes an inner product of centred Grams an HSIC: 1 / (n(n-3)), with bias 1 / (n-1)^2."""
    return 1 / (samples * (samples - 3) if unbiased else (samples - 1) ** 2)


def cka(hsic: Array) -> Array:
    """Normalise HSIC by its diagonal: CKA_ij = H_ij / sqrt(H_ii H_jj).

    Args:
        hsic: [..., L, L].

    Returns:
        [..., L, L] float64, symmetric bit for bit; the diagonal is exactly 1. Rows and columns of undefined
        layers are NaN.
    """
    xp = namespace(hsic)
    diagonal = xp.diagonal(hsic, axis1=-2, axis2=-1)
    similarity = cross_cka((hsic + xp.swapaxes(hsic, -2, -1)) / 2, diagonal, diagonal)
    layers = xp.arange(hsic.shape[-1])
    similarity[..., layers, layers] = xp.where(diagonal > 0, 1.0, np.nan)
    return similarity


def cross_cka(hsic_xy: Array, hsic_xx_diag: Array, hsic_yy_diag: Array) -> Array:
    """CKA between the layers of two models, or of one model on two data sets.

    Args:
        hsic_xy: [..., L, M] HSIC of the layers of X with those of Y.
        hsic_xx_diag: [..., L] HSIC of each layer of X with itself.
        hsic_yy_diag: [..., M] HSIC of each layer of Y with itself.

    Returns:
        [..., L, M] float64, NaN where either layer is undefined.
    """
    return hsic_xy / (_norm(hsic_xx_diag)[..., :, None] * _norm(hsic_yy_diag)[..., None, :])


def combine(hsic_batches: Array, estimator: Estimator = "minibatch") -> Array:
    """One similarity matrix from the HSIC matrices of several batches.

    `minibatch` sums HSIC over the batches and takes one ratio (Nguyen et al. 2021, equation 4), which does
    not depend on the batch size in expectation; `exact` and `biased` do so, too, from other HSIC matrices.
    `paper` takes the mean of the batches' ratios (RedTest).

    Batches in which a layer is undefined add nothing to its sums, as HSIC with a constant is 0, and do not
    count in its mean. A layer undefined in every batch is undefined.

    Args:
        hsic_batches: [B, L, L].
        estimator: `paper` or one of the others.

    Returns:
        [L, L] float64, like `cka`.

    Raises:
        InputError: no batches.
    """
    if len(hsic_batches) == 0:
        raise InputError("no batch was measured", hint="give at least four samples")
    xp = namespace(hsic_batches)
    if estimator != "paper":
        return cka(xp.nansum(hsic_batches, axis=0))
    return mean_of_defined(cka(hsic_batches))


def mean_of_defined(ratios: Array) -> Array:
    """[...] means of [B, ...] over the batches in which a ratio is defined; NaN where it is in none."""
    xp = namespace(ratios)
    defined = xp.isfinite(ratios).sum(axis=0)
    return xp.nansum(ratios, axis=0) / xp.where(defined > 0, defined, np.nan)


def gram_samples(grams: Array, minimum: int) -> int:
    """Number of samples of [..., n, n]; InputError if there are fewer than that, or it is not square."""
    if grams.ndim < 2 or grams.shape[-1] != grams.shape[-2]:
        raise InputError(f"a Gram matrix must be square, got shape {tuple(grams.shape)}")
    n = int(grams.shape[-1])
    if n < minimum:
        raise InputError(
            f"similarity needs at least {minimum} samples in a batch, got {n}",
            hint="give more samples, or a batch size that leaves no smaller rest",
        )
    return n


def squared_norms(matrices: Array) -> Array:
    """[L] squared Frobenius norms of [L, ...]."""
    rows = matrices.reshape(len(matrices), -1)
    return namespace(matrices).einsum("ij,ij->i", rows, rows)


def _norm(diagonal: Array) -> Array:
    """sqrt(HSIC(K, K)), NaN where a layer is undefined."""
    xp = namespace(diagonal)
    return xp.sqrt(xp.where(diagonal > 0, diagonal, np.nan))

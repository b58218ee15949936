"""Centered kernel alignment (CKA) of all pairs of layers from one matrix product.

HSIC is unbiased after `u_centre` and biased after `h_centre`. Similarities are neither clamped nor damped by
an epsilon: the unbiased one lies in [-1, 1] and scatters around 0 for unrelated layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np

from redtest_onnx.errors import InputError
from redtest_onnx.metrics.arrays import Array, namespace
from redtest_onnx.metrics.grams import centre

Estimator: TypeAlias = Literal["minibatch", "paper", "exact", "biased"]

# Centring a constant layer's Gram leaves the float32 rounding of the values it was made from.
CONSTANT = 1e-5

# A block that stays in the processor's cache is centred several times faster.
_BLOCK_ELEMENTS = 1 << 18

UNBIASED_SAMPLES = 4
"""The fewest samples for which the unbiased estimator exists."""

BIASED_SAMPLES = 2
"""The fewest samples for which the biased estimator exists."""


def u_centre(grams: Array, out: Array | None = None) -> Array:
    """U-centre Gram matrices, which makes their inner products unbiased.

    With row sums r and total S of K with a zero diagonal (Szekely and Rizzo 2014, definition 2):
    K~_ij = K_ij - r_i / (n-2) - r_j / (n-2) + S / ((n-1)(n-2)) for i != j, and 0 on the diagonal.

    Args:
        grams: [..., n, n] symmetric, of centred features where the features share a large mean.
        out: where the result goes, float64 of the same shape; may be `grams` itself.

    Returns:
        [..., n, n] float64; all zero for a layer without similarity to measure: one that does not vary (rms
        at most 1e-5 of the Gram's), or with values that are not finite.

    Raises:
        InputError: fewer than four samples, or matrices that are not square.
    """
    n = gram_samples(grams, UNBIASED_SAMPLES)

    def centre_block(block: Array) -> None:
        # In memory order the diagonal is every (n + 1)-th element.
        diagonal = block.reshape(-1, n * n)[:, :: n + 1]
        diagonal[...] = 0
        _subtract_sums(block, n - 2, (n - 1) * (n - 2))
        diagonal[...] = 0

    return _in_blocks(grams, centre_block, out)


def h_centre(grams: Array, out: Array | None = None) -> Array:
    """H K H with H = I - 11^T / n, the centring of the biased estimator (Gretton et al. 2005).

    Args:
        grams: [..., n, n] symmetric.
        out: as in `u_centre`.

    Returns:
        [..., n, n] float64; all zero where `u_centre` says so too.

    Raises:
        InputError: fewer than two samples, or matrices that are not square.
    """
    n = gram_samples(grams, BIASED_SAMPLES)
    return _in_blocks(grams, lambda block: _subtract_sums(block, n, n * n), out)


def hsic_matrix(centred: Array, other: Array | None = None, *, unbiased: bool = True) -> Array:
    """HSIC of all pairs of layers: one product of the centred Grams flattened to rows.

    Song et al. (2012), equation 4, for U-centred Grams: <K~, L~> / (n(n-3)). Biased: <HKH, HLH> / (n-1)^2.
    Needs no memory beside its arguments and its result.

    Args:
        centred: [L, n, n] float64 from `u_centre`, or from `h_centre` where `unbiased` is off.
        other: [M, n, n] likewise, of the same samples in the same order; `centred` itself if absent.
        unbiased: which of the two divisors.

    Returns:
        [L, M] float64; NaN in the rows and columns of layers that do not vary.

    Raises:
        InputError: the two sets were measured on different numbers of samples, or on too few.
    """
    n = gram_samples(centred, UNBIASED_SAMPLES if unbiased else BIASED_SAMPLES)
    other = centred if other is None else other
    check_alike(n, other.shape[-1])
    rows, columns = (grams.reshape(len(grams), -1) for grams in (centred, other))
    hsic = rows @ columns.T
    hsic *= hsic_scale(n, unbiased=unbiased)
    hsic[~rows.any(axis=1)] = np.nan
    hsic[:, ~columns.any(axis=1)] = np.nan
    return hsic


def check_alike(samples: int, other: int) -> None:
    """Refuse layers measured on different numbers of samples."""
    if other != samples:
        raise InputError(
            f"layers measured on {samples} and on {other} samples can't be compared",
            hint="feed both models the same samples in the same order",
        )


def hsic_scale(samples: int, *, unbiased: bool) -> float:
    """What makes an inner product of centred Grams an HSIC."""
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


def unbiased_hsic_features(x: Array, y: Array) -> float:
    """The unbiased HSIC of two linear kernels from the features, without an n x n matrix.

    For centred X and Y: (|X^T Y|_F^2 - n/(n-2) sum_i |x_i|^2 |y_i|^2
    + sum_i |x_i|^2 sum_i |y_i|^2 / ((n-1)(n-2))) / (n(n-3)). Pays off where p and q are far below n.

    Args:
        x: [n, p].
        y: [n, q], of the same samples.

    Returns:
        What `hsic_matrix` holds for this pair; NaN where one of the two does not vary.

    Raises:
        InputError: fewer than four samples, or different numbers of them.
    """
    if len(x) != len(y) or len(x) < UNBIASED_SAMPLES:
        raise InputError(
            f"unbiased similarity needs the same samples twice, at least four, got {len(x)} and {len(y)}",
            hint="feed both layers the same batch",
        )
    xp, n = namespace(x), len(x)
    x, y = centre(x, xp.float64), centre(y, xp.float64)
    if not (x.any() and y.any()):
        return float("nan")
    x_norms, y_norms = xp.square(x).sum(axis=1), xp.square(y).sum(axis=1)
    product = xp.square(x.T @ y).sum() - n / (n - 2) * (x_norms @ y_norms)
    return float((product + x_norms.sum() * y_norms.sum() / ((n - 1) * (n - 2))) / (n * (n - 3)))


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


def _in_blocks(grams: Array, centre_block: Callable[[Array], None], out: Array | None) -> Array:
    """Centre float64 copies in place; layers that do not vary become exactly 0, as `hsic_matrix` expects."""
    xp, n = namespace(grams), grams.shape[-1]
    source = grams.reshape(-1, n, n)
    centred = xp.empty(source.shape, dtype=xp.float64) if out is None else out.reshape(source.shape)
    step = max(1, _BLOCK_ELEMENTS // (n * n))
    with np.errstate(invalid="ignore"):
        for start in range(0, len(source), step):
            block = centred[start : start + step]
            if out is not grams:
                block[...] = source[start : start + step]
            raw = squared_norms(block)
            centre_block(block)
            varies = squared_norms(block) > CONSTANT**2 * raw
            block[~varies] = 0
    return centred.reshape(grams.shape)


def _subtract_sums(grams: Array, row_divisor: int, total_divisor: int) -> None:
    """K_ij - r_i / a - r_j / a + S / b in place, for [layers, n, n]."""
    rows = grams.sum(axis=-1)
    shares = rows / row_divisor - (rows.sum(axis=-1) / (2 * total_divisor))[:, None]
    grams -= shares[:, :, None]
    grams -= shares[:, None, :]


def squared_norms(matrices: Array) -> Array:
    """[L] squared Frobenius norms of [L, ...]."""
    rows = matrices.reshape(len(matrices), -1)
    return namespace(matrices).einsum("ij,ij->i", rows, rows)


def _norm(diagonal: Array) -> Array:
    """sqrt(HSIC(K, K)), NaN where a layer is undefined."""
    xp = namespace(diagonal)
    return xp.sqrt(xp.where(diagonal > 0, diagonal, np.nan))

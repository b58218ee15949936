"""Gram matrices: how alike a layer finds each pair of samples."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from redtest_onnx.errors import InputError
from redtest_onnx.metrics.arrays import Array, namespace

# Kernels may sum in another order for another sample, and leave this many rounding steps on a constant.
_NOISE_STEPS = 8

# Bounds the memory of the centred copy.
_BLOCK_ELEMENTS = 1 << 20


def flatten(features: Array) -> Array:
    """Put everything after the sample axis into one axis.

    Args:
        features: [n, ...].

    Returns:
        [n, p], a view where the memory layout allows it; [n, 1] for one number a sample.

    Raises:
        InputError: no sample axis.
    """
    if features.ndim == 0:
        raise InputError("features need a sample axis, got a single number")
    return features.reshape(features.shape[0], math.prod(features.shape[1:]))


def centre(features: Array, dtype: npt.DTypeLike | None = None) -> Array:
    """Subtract each feature's mean over the samples.

    A feature that varies by rounding noise only becomes exactly 0, so that a constant layer is recognised
    as one. Centring before any product keeps float32 from cancelling when features share a large mean.

    Args:
        features: [n, p], any real dtype.
        dtype: of the computation and the result; by default float64 for float64 and wide integers, else
            float32. What counts as noise depends on the dtype of the features alone.

    Returns:
        [n, p] in that dtype.

    Raises:
        InputError: not two axes, or no samples.
    """
    _check_matrix(features)
    xp = namespace(features)
    own = xp.result_type(features.dtype, xp.float32)
    values = features.astype(own if dtype is None else dtype, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):
        varies = beyond_rounding(values.min(axis=0), values.max(axis=0), features.dtype)
        centred: Array = values - values.mean(axis=0)
        centred -= centred.mean(axis=0)  # a large mean is rounded itself
        centred *= varies
        return centred


def only_rounding(largest: float, level: float, features: int, dtype: npt.DTypeLike) -> bool:
    """Whether the values of a layer differ by no more than the rounding of their common level.

    What rounding leaves of a constant looks like noise; only beside the level it is known for nothing.

    Args:
        largest: squared norm of the sample farthest from the mean, [p] features together.
        level: largest absolute mean of a feature.
        features: p.
        dtype: of the values as the network made them.
    """
    return bool(largest <= features * (_noise(dtype) * level) ** 2)


def beyond_rounding(low: Array, high: Array, dtype: npt.DTypeLike) -> Array:
    """Which features vary by more than the rounding of their level.

    Args:
        low: [p] smallest value of each feature.
        high: [p] largest.
        dtype: of the values as the network made them.

    Returns:
        [p] bool.
    """
    xp = namespace(low)
    noise = _noise(dtype) * xp.maximum(-low, high).astype(xp.float64)
    with np.errstate(invalid="ignore"):  # infinity, which does not vary
        varies: Array = high.astype(xp.float64) - low.astype(xp.float64) > noise
    return varies


def _noise(dtype: npt.DTypeLike) -> float:
    return _NOISE_STEPS * float(np.finfo(np.result_type(dtype, np.float32)).eps)


def linear_gram(features: Array) -> Array:
    """K = X X^T of the centred features X.

    Float32 features are multiplied in float32, which is enough once they are centred, in blocks that are
    summed in float64. Float64 features stay float64 throughout.

    Args:
        features: [n, p], any real dtype.

    Returns:
        [n, n] float64; all zero for a layer that does not vary, NaN where a feature is not finite.

    Raises:
        InputError: not two axes, or no samples.
    """
    return _gram(features)


def centre_gram(gram: Array) -> Array:
    """The Gram of centred features from that of features with any shift: H K H, in place.

    Args:
        gram: [n, n] float64, symmetric.

    Returns:
        The same array.
    """
    means = gram.mean(axis=0)
    shares = means - means.mean() / 2
    gram -= shares[:, None]
    gram -= shares
    return gram


def centred_norms(gram: Array) -> Array:
    """[n] squared norms of centred samples, from the [n, n] float64 Gram of features with any shift."""
    means = gram.mean(axis=0)
    norms: Array = gram.diagonal() - 2 * means
    norms += means.mean()
    return norms


def rbf_gram(features: Array, bandwidth: float = 1.0) -> Array:
    """K_ij = exp(-|x_i - x_j|^2 / (2 sigma^2)), with sigma a multiple of the median distance.

    The rule of Kornblith et al. (2019), section 4. Where more than half of the pairs coincide the median is
    0 and the mean distance takes its place.

    Args:
        features: [n, p], any real dtype; computed in float64.
        bandwidth: sigma over the median distance of two samples.

    Returns:
        [n, n] float64; all one for a layer that does not vary, NaN where a feature is not finite.

    Raises:
        InputError: the bandwidth is not positive, not two axes, or fewer than two samples.
    """
    if not 0 < bandwidth < math.inf:
        raise InputError(f"the RBF bandwidth must be positive, got {bandwidth}", hint="1 is a usual value")
    return _rbf(_gram(features, namespace(features).float64), bandwidth)


def rbf_of_linear(gram: Array, bandwidth: float = 1.0) -> Array:
    """The RBF Gram from the linear one of the same features, which knows all distances.

    Args:
        gram: [n, n] float64, of features with any shift.
        bandwidth: as in `rbf_gram`.

    Returns:
        [n, n] float64. Two samples much nearer to each other than to the mean have the rounding of float32 in
        their distance if the Gram was made in it.

    Raises:
        InputError: as `rbf_gram`.
    """
    if not 0 < bandwidth < math.inf:
        raise InputError(f"the RBF bandwidth must be positive, got {bandwidth}", hint="1 is a usual value")
    return _rbf(gram, bandwidth)


def _gram(features: Array, dtype: npt.DTypeLike | None = None) -> Array:
    _check_matrix(features)
    xp = namespace(features)
    samples, width = features.shape
    step = max(1, _BLOCK_ELEMENTS // samples)
    total = None
    for start in range(0, width, step):
        block = centre(features[:, start : start + step], dtype)
        # Squares of very small or large float32 values leave its range.
        scale = xp.maximum(block.max(), -block.min())
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite stays so, without words
            block /= xp.where(scale > 0, scale, 1)
            gram = xp.multiply(block @ block.T, scale.astype(xp.float64) ** 2, dtype=xp.float64)
        if total is None:
            total = gram
        else:
            total += gram
    return xp.zeros((samples, samples)) if total is None else total


def _rbf(gram: Array, bandwidth: float) -> Array:
    squared = _squared_distances(gram)
    xp, samples = namespace(gram), gram.shape[0]
    if samples < 2:
        raise InputError("distances need at least two samples, got one", hint="use more samples")
    # One row shorter and one longer, the diagonal is the first column.
    distances = xp.sqrt(squared.ravel()[:-1].reshape(samples - 1, samples + 1)[:, 1:])
    median, mean = xp.median(distances), distances.mean()
    typical = xp.where(median > 0, median, xp.where(mean > 0, mean, 1.0))
    return xp.exp(squared / (-2 * (bandwidth * typical) ** 2))


def _squared_distances(gram: Array) -> Array:
    """|x_i - x_j|^2 as [n, n] float64; pairs within rounding of each other get exactly 0."""
    xp = namespace(gram)
    norms = gram.diagonal()
    squared = norms[:, None] + norms - 2 * gram
    noise = _NOISE_STEPS * float(xp.finfo(xp.float64).eps) * norms.max()
    squared[squared <= noise] = 0
    return squared


def _check_matrix(features: Array) -> None:
    if features.ndim != 2 or features.shape[0] == 0:
        raise InputError(
            f"features must be [samples, features] with at least one sample, got {tuple(features.shape)}",
            hint="flatten or pool the axes after the first",
        )

"""HSIC of all pairs of layers on a whole data set at once, which may be far larger than a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from redtest_onnx.errors import InputError
from redtest_onnx.metrics.arrays import Array, namespace
from redtest_onnx.metrics.cka import UNBIASED_SAMPLES, hsic_of_sums
from redtest_onnx.metrics.grams import beyond_rounding

# Elements of the blocks that are held at a time: of Grams for all layers, or of features in float64.
_BLOCK_ELEMENTS = 1 << 25


def full_hsic(layers: Sequence[Array], others: Sequence[Array] | None = None) -> Array:
    """Unbiased HSIC of linear kernels from features, without a whole n x n matrix.

    Few features are compared in feature space. Where that is more work than Gram matrices, these are made
    block by block and summed.

    Args:
        layers: per layer [n, p], float32 or float64; may be memory-mapped.
        others: the layers of another model on the same samples, likewise; `layers` itself if absent.

    Returns:
        [L, M] float64; NaN in the rows and columns of layers that do not vary.

    Raises:
        InputError: fewer than four samples, or different numbers of them.
    """
    second = layers if others is None else others
    n = len(layers[0])
    if n < UNBIASED_SAMPLES or any(len(x) != n for x in (*layers, *second)):
        raise InputError(
            "similarity needs the same samples, at least four, in all layers",
            hint="feed both models the same samples in the same order",
        )
    first = [_Centred(x) for x in layers]
    partners = first if others is None else [_Centred(x) for x in others]
    if _feature_space_is_cheaper(first, partners, n):
        sums = _in_feature_space(first, partners)
    else:
        sums = _in_blocks(first, partners, n)
    scales = [
        namespace(layers[0]).asarray([layer.scale**2 for layer in group]) for group in (first, partners)
    ]
    hsic = hsic_of_sums(*sums) * scales[0][:, None] * scales[1]
    for axis, group in enumerate((first, partners)):
        for k, layer in enumerate(group):
            if layer.constant:
                hsic[(slice(None),) * axis + (k,)] = np.nan
    return hsic


class _Centred:
    """Features less their mean, cut out when they are asked for; 0 where they vary by rounding alone."""

    def __init__(self, features: Array) -> None:
        xp = namespace(features)
        features = features.astype(xp.result_type(features.dtype, xp.float32), copy=False)
        self.features = features
        self.width = int(features.shape[1])
        rows = max(1, _BLOCK_ELEMENTS // max(self.width, 1))
        parts = [features[start : start + rows] for start in range(0, len(features), rows)]
        self.mean = sum(part.sum(axis=0, dtype=xp.float64) for part in parts) / len(features)
        low = xp.stack([part.min(axis=0) for part in parts]).min(axis=0)
        high = xp.stack([part.max(axis=0) for part in parts]).max(axis=0)
        varies = beyond_rounding(low, high, features.dtype)
        self._varies = None if bool(varies.all()) else varies
        with np.errstate(over="ignore", invalid="ignore"):
            norms = [float(xp.square((part - self.mean) * varies).sum(axis=1).max()) for part in parts]
        largest = max(norms)
        self.constant = not largest > 0
        # A power of two is exact; products of float32 values of any size stay within its range.
        self.scale = 2.0 ** math.frexp(largest**0.5)[1] if math.isfinite(largest) and largest > 0 else 1.0

    def rows(self, start: int, stop: int) -> Array:
        """[stop - start, p] in the type of the features, over `scale`."""
        part = self.features[start:stop]
        return self._varying((part - self.mean.astype(part.dtype)) / part.dtype.type(self.scale))

    def whole(self) -> Array:
        """[n, p] float64 over `scale`, centred exactly: what rounding leaves of a mean counts n times."""
        xp = namespace(self.features)
        with np.errstate(invalid="ignore"):  # infinity, which leaves the index undefined
            return self._varying((self.features.astype(xp.float64) - self.mean) / self.scale)

    def _varying(self, centred: Array) -> Array:
        if self._varies is not None:
            centred *= self._varies  # what is not finite stays so
        return centred


def _feature_space_is_cheaper(first: list[_Centred], second: list[_Centred], n: int) -> bool:
    widths = [sum(layer.width for layer in group) for group in (first, second)]
    in_features = n * widths[0] * widths[1]
    in_grams = n * n * (sum(widths) + len(first) * len(second))
    return in_features <= in_grams


def _in_feature_space(first: list[_Centred], second: list[_Centred]) -> tuple[Array, Array, Array]:
    """What `hsic_of_sums` takes, of Gram matrices with a zero diagonal: <K, L> and the sums of their rows.

    Of centred features X and Y <K, L> is |X^T Y|_F^2 - sum_i |x_i|^2 |y_i|^2, and a row of K sums up to
    -|x_i|^2.
    """
    xp = namespace(first[0].features)
    columns = [layer.whole() for layer in second]
    norms = xp.stack([xp.square(column).sum(axis=1) for column in columns])
    own = norms if second is first else xp.empty((len(first), norms.shape[1]))
    products = xp.empty((len(first), len(second)))
    for i, layer in enumerate(first):
        x = layer.whole()
        own[i] = xp.square(x).sum(axis=1)
        crossed = xp.stack([xp.square(x.T @ column).sum() for column in columns])
        products[i] = crossed - norms @ own[i]
    return products, -own, -norms


def _in_blocks(first: list[_Centred], second: list[_Centred], n: int) -> tuple[Array, Array, Array]:
    """The same, from Grams of blocks of samples for all layers at a time."""
    xp = namespace(first[0].features)
    same = second is first
    layers = first if same else [*first, *second]
    side = max(UNBIASED_SAMPLES, int((_BLOCK_ELEMENTS / len(layers)) ** 0.5))
    split = len(first)
    products = xp.zeros((len(first), len(second)))
    sums = xp.zeros((len(layers), n))
    for rows, columns in _lower_blocks(n, side):
        grams = xp.stack([_gram_block(layer, rows, columns) for layer in layers])
        diagonal = rows == columns
        if diagonal:
            span = xp.arange(rows[1] - rows[0])
            grams[:, span, span] = 0
        sums[:, rows[0] : rows[1]] += grams.sum(axis=2)
        if not diagonal:
            sums[:, columns[0] : columns[1]] += grams.sum(axis=1)
        flat = grams.reshape(len(layers), -1)
        weight = 1 if diagonal else 2
        products += weight * (flat[:split] @ (flat if same else flat[split:]).T)
    return products, sums[:split], sums if same else sums[split:]


def _lower_blocks(n: int, side: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    bounds = [(start, min(start + side, n)) for start in range(0, n, side)]
    for i, rows in enumerate(bounds):
        for columns in bounds[: i + 1]:
            yield rows, columns


def _gram_block(layer: _Centred, rows: tuple[int, int], columns: tuple[int, int]) -> Array:
    xp = namespace(layer.features)
    return (layer.rows(*rows) @ layer.rows(*columns).T).astype(xp.float64)

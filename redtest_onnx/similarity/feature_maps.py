"""Feature maps of layers that follow on one another: what a similarity looks like in one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Float32s
from redtest_onnx.errors import InputError
from redtest_onnx.layers.layer import Layer
from redtest_onnx.runtime.activations import expose_tensors, iterate_activations
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analysis import Analysis

PAIRS, CHANNELS = 3, 8
_SIZES = (4, 2)
"""Pixels per axis that a map should have to be looked at, and must have."""


@dataclass(frozen=True, eq=False)
class FeatureMapPair:
    """A layer and the next one for one sample.

    Attributes:
        before: the layer.
        after: the next one.
        similarity: their CKA over all samples.
        maps: of the layer, [k, H, W], and of the next one, [k, h, w].
        channels: indices [2, k] of the channels shown.
    """

    before: Layer
    after: Layer
    similarity: float
    maps: tuple[Float32s, Float32s]
    channels: npt.NDArray[np.int64]


def feature_map_pairs(
    bench: Workbench, analysis: Analysis, *, pairs: int = PAIRS, sample: int = 0
) -> tuple[FeatureMapPair, ...]:
    """The most similar pairs of neighbouring layers and, behind them, the least similar one.

    Of each pair the channels that vary most over the positions of the earlier layer are shown, beside the
    same channels of the later one, or, where sizes differ, those that correlate with them best.

    Args:
        bench: the model and its samples.
        analysis: of it.
        pairs: how many of the most similar.
        sample: index of the sample that is run.

    Raises:
        InputError: no two layers that follow on one another give images.
    """
    neighbours = zip(analysis.adjacent, analysis.layers[:-1], analysis.layers[1:], strict=True)
    defined = [item for item in neighbours if not np.isnan(item[0])]
    by_size = ([item for item in defined if all(_is_image(x, n) for x in item[1:])] for n in _SIZES)
    known = next(filter(None, by_size), [])
    if not known:
        raise InputError(
            "no two layers in a row give images [n, channels, height, width] of more than one pixel",
            where=bench.label,
            hint="feature maps are for models of images; @png shows the similarity of any layers",
        )
    known.sort(key=lambda item: -item[0])
    chosen = known[:pairs] + known[pairs:][-1:]
    tensors = dict.fromkeys(layer.tensor for _, *both in chosen for layer in both)
    values = _run(bench, list(tensors), sample)
    return tuple(_pair(value, before, after, values) for value, before, after in chosen)


def _is_image(layer: Layer, least: int) -> bool:
    if layer.shape is None or len(layer.shape) != 4:
        return False
    height, width = layer.shape[1:3] if layer.channels_last else layer.shape[2:]
    return min(height, width) >= least


def _run(bench: Workbench, tensors: Sequence[str], sample: int) -> dict[str, Float32s]:
    exposed = expose_tensors(bench, [escape(name) for name in tensors], dequantize=True)
    batch = next(iterate_activations(bench, exposed, np.array([sample], np.int64)))
    return {tensor.name: np.asarray(batch.values[tensor.output], np.float32) for tensor in exposed.tensors}


def _pair(value: float, before: Layer, after: Layer, values: dict[str, Float32s]) -> FeatureMapPair:
    first, second = (_channels_first(layer, values[layer.tensor][0]) for layer in (before, after))
    count = min(CHANNELS, len(first), len(second))
    own = np.argsort(-first.reshape(len(first), -1).var(axis=1), kind="stable")[:count]
    others = own if first.shape == second.shape else _companions(first[own], second)
    return FeatureMapPair(before, after, value, (first[own], second[others]), np.stack([own, others]))


def _channels_first(layer: Layer, image: Float32s) -> Float32s:
    return np.moveaxis(image, -1, 0) if layer.channels_last else image


def _companions(maps: Float32s, others: Float32s) -> npt.NDArray[np.int64]:
    """For each map [k, H, W] the channel of others [C, h, w] that correlates with it best, each once."""
    rows, columns = (
        np.linspace(0, size - 1, new).round().astype(int)
        for size, new in zip(maps.shape[1:], others.shape[1:], strict=True)
    )
    left, right = (
        _standardised(part.reshape(len(part), -1).astype(np.float64))
        for part in (maps[:, rows][:, :, columns], others)
    )
    alike = np.abs(left @ right.T)
    found: list[int] = []
    for row in alike:
        row = row.copy()
        row[found] = -1.0
        found.append(int(row.argmax()))
    return np.array(found, np.int64)


def _standardised(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return result

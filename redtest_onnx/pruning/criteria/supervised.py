"""Criteria that ask how well a layer's features tell the classes apart; they need labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Counted
from redtest_onnx.data.batching import batches
from redtest_onnx.errors import InputError
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.layers.layer import Layer
from redtest_onnx.metrics.least_squares import best_fit
from redtest_onnx.metrics.ridge import NormalEquations
from redtest_onnx.pruning.criteria.base import CriterionContext, ScoredLayer, criterion
from redtest_onnx.pruning.criteria.modularity import NEIGHBOURS, modularity
from redtest_onnx.pruning.repair.positions import counted_rows
from redtest_onnx.runtime.session import Session

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_SAMPLES = 500
_BATCH = 16


@criterion("modularity")
def by_modularity(context: CriterionContext) -> list[ScoredLayer]:
    """Layers go first that add least to the modularity of the classes (Lu et al., ECCV 2022).

    Score: minus the gain over the layer before.
    """
    return _least_gain(context, modularity)


@criterion("probe")
def by_probe(context: CriterionContext) -> list[ScoredLayer]:
    """Layers go first that add least to the accuracy of a linear classifier on their pooled features.

    After Chen and Zhao (2019) and DBP (Wang et al., 2019). Score: minus the gain over the layer before.
    """
    return _least_gain(context, linear_accuracy)


def linear_accuracy(features: npt.NDArray[np.generic], labels: Labels) -> float:
    """Accuracy of a ridge classifier on a random half of the samples, which neither it nor its penalty saw.

    The penalty is chosen by the squared error on half of the others, and the classifier then fitted to all of
    these. Where no penalty helps there, the answer is their commonest class.

    Args:
        features: [n, p], any real dtype.
        labels: [n] classes.

    Returns:
        A share of 1; 0 of fewer than two samples.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    judged, fitted = np.array_split(order, 2)
    if not len(fitted):
        return 0.0
    classes, found = np.unique(labels, return_inverse=True)
    goals = np.eye(len(classes))[found]
    spread = features[fitted].std(axis=0)
    scaled = (features - features[fitted].mean(axis=0)) / np.where(spread > 0, spread, 1)
    sums = []
    for part in np.array_split(fitted, 2):
        sums.append(NormalEquations(scaled.shape[1], len(classes)))
        sums[-1].add(scaled[part, None], goals[part, None])
    fit = best_fit(*sums)
    scores = goals[fitted].mean(axis=0) if fit is None else scaled[judged] @ fit.weight[0] + fit.bias[0]
    return float(np.mean(scores.argmax(axis=-1) == found[judged]))


def _least_gain(context: CriterionContext, quality: Callable[[Features, Labels], float]) -> list[ScoredLayer]:
    """Candidates by what the quality of the features gains from the layer before to them."""
    layers = context.analysis.layers
    features, labels = _features(context)
    found = [quality(features[layer.tensor], labels) for layer in layers]
    gains: dict[Layer, float] = {
        layer: found[layer.index] - (found[layer.index - 1] if layer.index else 0.0)
        for layer in context.candidates
    }
    return sorted((ScoredLayer(layer, -gain) for layer, gain in gains.items()), key=lambda item: -item.score)


def _features(context: CriterionContext) -> tuple[dict[str, Features], Labels]:
    """Features [n, p] of all layers, averaged over positions, and the labels [n] of the samples."""
    indices = context.indices[:_SAMPLES]
    labels = context.data.labels(indices)
    if labels is None or len(indices) <= NEIGHBOURS:
        raise InputError(
            "this criterion needs labels, and some samples of them",
            where=context.data.source,
            hint="class subfolders, an array `labels`, or a criterion without labels such as redtest",
        )
    layers = context.analysis.layers
    session = Session(expose(context.model, [layer.tensor for layer in layers]), context.bench.options)
    fixed = context.bench.fixed_batch
    found: dict[str, list[Features]] = {layer.tensor: [] for layer in layers}
    for chosen, count in batches(indices, fixed or _BATCH, fixed=fixed is not None):
        feeds = context.data.inputs(chosen)
        values = session.run(feeds, borrowed=True)
        counted = None if context.bench.mask is None else context.bench.mask.counted(feeds)
        for layer in layers:
            found[layer.tensor].append(_pooled(values[layer.tensor], len(chosen), layer, counted)[:count])
    return {name: np.concatenate(parts) for name, parts in found.items()}, np.asarray(labels)


def _pooled(values: npt.NDArray[np.generic], samples: int, layer: Layer, counted: Counted = None) -> Features:
    """[n, channels] means over positions: behind the channels of images, before those of sequences."""
    x = values.astype(np.float32)
    if x.shape[0] != samples:
        x = x.reshape(samples, -1, x.shape[-1])
    channels_last = x.ndim == 3 and not layer.channels_first
    rows = counted_rows(x, counted) if channels_last else None
    if rows is not None and rows.ndim == 2:
        weights = rows[:, :, None].astype(np.float32)
        masked: Features = np.where(rows[:, :, None], x, 0).sum(1) / np.maximum(weights.sum(1), 1)
        return masked
    pooled: Features = x.mean(axis=1) if channels_last else x.reshape(samples, x.shape[1], -1).mean(axis=2)
    return pooled

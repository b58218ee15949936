"""MSRS of a network at the layers that its space names."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from redtest_onnx.bridge.device import full_float32
from redtest_onnx.metrics.cka import combine
from redtest_onnx.metrics.grams import linear_gram
from redtest_onnx.metrics.msrs import msrs
from redtest_onnx.metrics.packed import PackedGrams


@dataclass(frozen=True)
class NetworkRedundancy:
    """How redundant a network is.

    Attributes:
        msrs: the score; None if no two layers vary over the images.
        layers: number of layers.
        undefined: number of layers left out since they do not vary.
    """

    msrs: float | None
    layers: int
    undefined: int


@torch.no_grad()
def redundancy(
    network: nn.Module,
    images: npt.NDArray[np.float32],
    *,
    samples: int = 256,
    alpha: float = 100.0,
    threshold: float = 0.8,
) -> NetworkRedundancy:
    """Measure the MSRS of a network with mean pooling, over batches of `samples` images.

    Args:
        network: has `layers(x)`, see `Space.build`.
        images: [n, channels, size, size].
        samples: images per batch; what is left over after whole batches is not used.
        alpha: steepness of the score.
        threshold: similarity that scores one half.
    """
    network.eval()
    device = next(network.parameters()).device
    size = min(samples, len(images))
    stack = []
    for start in range(0, len(images) - size + 1, size):
        batch = torch.from_numpy(images[start : start + size]).to(device)
        with full_float32():
            outputs = network.layers(batch)[1]  # type: ignore[operator]
        grams = (linear_gram(_pooled(x)) for x in outputs)
        stack.append(PackedGrams.of(grams, len(outputs), size).hsic())
    similarity = combine(np.stack(stack))
    score = msrs(similarity, alpha, threshold)
    undefined = int(np.isnan(np.diagonal(similarity)).sum())
    return NetworkRedundancy(None if math.isnan(score.value) else score.value, len(similarity), undefined)


def _pooled(activation: Tensor) -> npt.NDArray[np.float32]:
    """Mean over positions: [n, c, ...] to [n, c]; tokens [n, t, d] to [n, d]."""
    if activation.ndim == 3:
        activation = activation.mean(1)
    elif activation.ndim > 3:
        activation = activation.flatten(2).mean(2)
    features: npt.NDArray[np.float32] = activation.cpu().numpy()
    return features

"""A task that a tiny network learns in a second: which quarter of an image is bright."""

from __future__ import annotations

import numpy as np
from nets import Net

from redtest_onnx.data.arrays import ArrayData
from redtest_onnx.graph.model import Model


def network() -> Model:
    """An untrained convolution with batch normalisation, and a layer on top."""
    rng = np.random.default_rng(0)
    net = Net(x=["n", 1, 6, 6])
    hidden = net("Conv", "x", net.store(rng.normal(size=(8, 1, 3, 3)) / 3))
    norm = [net.store(v) for v in (np.ones(8), np.zeros(8), rng.normal(size=8) / 9, rng.uniform(1, 2, 8))]
    hidden = net("Relu", net("BatchNormalization", hidden, *norm))
    flat = net("Flatten", hidden)
    return net.model(net("Gemm", flat, net.store(rng.normal(size=(4, 128)) / 11), net.weight(4), transB=1))


def samples(count: int = 240) -> ArrayData:
    """Which quarter of an image is bright."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, count)
    images = rng.normal(size=(count, 1, 6, 6)).astype(np.float32) * 0.3
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[0, row * 3 : row * 3 + 3, column * 3 : column * 3 + 3] += 1
    return ArrayData.in_memory("quarters", {"x": images}, labels)

"""Slow ways to what the package computes, to hold it against."""

from __future__ import annotations

import numpy as np

import redtest_onnx as rt
from redtest_onnx.graph.probe.reduction import unpack_gram
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.metrics.arrays import Array
from redtest_onnx.metrics.packed import PackedGrams
from redtest_onnx.runtime.session import Session


def song_hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """Song et al. 2012, equation 4, term by term."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    ones = np.ones(n)
    trace = np.trace(k @ l)
    products = (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
    mixed = 2 / (n - 2) * (ones @ k @ l @ ones)
    return float((trace + products - mixed) / (n * (n - 3)))


def slow_cka(features: list[np.ndarray]) -> np.ndarray:
    grams = []
    for x in features:
        x = x.astype(np.float64)
        x = x - x.mean(axis=0)
        grams.append(x @ x.T)
    own = [song_hsic(g, g) for g in grams]
    return np.array(
        [
            [song_hsic(a, b) / np.sqrt(own[i] * own[j]) for j, b in enumerate(grams)]
            for i, a in enumerate(grams)
        ]
    )


def activations(model: rt.Model, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    outputs = Session(expose(model, names), rt.RunOptions("cpu"), level="none").run(feeds)
    return [outputs[name] for name in names]


def whole_gram(flat: np.ndarray, samples: int) -> np.ndarray:
    """A packed lower triangle as a matrix."""
    gram = np.empty((samples, samples))
    unpack_gram(flat, samples, gram)
    return gram


def packed(grams: Array, *, unbiased: bool = True) -> PackedGrams:
    """Gram matrices [L, n, n], centred and packed; they themselves stay as they are."""
    return PackedGrams.of(grams.copy(), len(grams), grams.shape[-1], unbiased=unbiased)

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


def u_centre(grams: np.ndarray) -> np.ndarray:
    """U-centred Gram matrices [..., n, n] (Szekely and Rizzo 2014, definition 2): 0 on the diagonal."""
    n = grams.shape[-1]
    off = grams * (1 - np.eye(n))
    rows = off.sum(axis=-1, keepdims=True)
    totals = rows.sum(axis=-2, keepdims=True)
    centred = off - rows / (n - 2) - rows.swapaxes(-1, -2) / (n - 2) + totals / ((n - 1) * (n - 2))
    return centred * (1 - np.eye(n))


def h_centre(grams: np.ndarray) -> np.ndarray:
    """H K H with H = I - 11^T / n."""
    n = grams.shape[-1]
    h = np.eye(n) - 1 / n
    return h @ grams @ h


def hsic_matrix(grams: np.ndarray, others: np.ndarray | None = None, *, unbiased: bool = True) -> np.ndarray:
    """HSIC [L, M] of Gram matrices [L, n, n] and [M, n, n], centred one by one."""
    n = grams.shape[-1]
    centre = u_centre if unbiased else h_centre
    one, other = (
        centre(each).reshape(len(each), -1) for each in (grams, grams if others is None else others)
    )
    return one @ other.T / (n * (n - 3) if unbiased else (n - 1) ** 2)


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

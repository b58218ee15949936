"""Least-squares problems for tests: sums of rows, a solution by the spectrum, a problem with a known map."""

from __future__ import annotations

from typing import Any

import numpy as np

from redtest_onnx.metrics.ridge import NormalEquations


def equations(x: np.ndarray, y: np.ndarray, batch: int = 7) -> NormalEquations:
    return filled(NormalEquations(x.shape[1], y.shape[1]), x, y, batch)


def filled(sums: Any, x: np.ndarray, y: np.ndarray, batch: int = 7) -> Any:
    for start in range(0, len(x), batch):
        sums.add(x[start : start + batch, None], y[start : start + batch, None])
    return sums


def ridge_by_spectrum(x: np.ndarray, y: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """By the spectrum of the centred normal matrix, in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    a, b = x - x.mean(0), y - y.mean(0)
    values, vectors = np.linalg.eigh(a.T @ a)
    penalty = ridge * values.mean()
    weight = vectors @ ((vectors.T @ (a.T @ b)) / (np.maximum(values, 0) + penalty)[:, None])
    return weight, y.mean(0) - x.mean(0) @ weight


def linear_problem() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)) + 3
    return x, x @ rng.normal(size=(5, 2)) + [1.0, -2.0] + rng.normal(scale=0.1, size=(200, 2))

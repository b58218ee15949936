"""How well the classes form communities in the similarity graph of a layer's features."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NEIGHBOURS = 3


def modularity(
    features: npt.NDArray[np.generic], labels: npt.NDArray[np.generic], neighbours: int = NEIGHBOURS
) -> float:
    """Weighted Newman modularity of the true classes (Lu et al., ECCV 2022).

    Every sample points to its most similar samples by cosine; the graph is made symmetric.

    Args:
        features: [n, p] of one layer.
        labels: [n] classes.
        neighbours: edges from each sample.

    Returns:
        Q in [-1, 1]; 0 where no edge has weight.

    Raises:
        ValueError: fewer samples than neighbours, or labels of another length.
    """
    x: npt.NDArray[np.float64] = features.astype(np.float64).reshape(len(features), -1)
    if len(x) <= neighbours or len(labels) != len(x):
        raise ValueError(f"{len(x)} samples and {len(labels)} labels for {neighbours} neighbours each")
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(norms > 0, norms, 1)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argpartition(-cosines, neighbours - 1, axis=1)[:, :neighbours]
    weights = np.zeros_like(cosines)
    rows = np.arange(len(x))[:, None]
    weights[rows, nearest] = np.maximum(cosines[rows, nearest], 0)
    weights = (weights + weights.T) / 2
    degrees = weights.sum(axis=1)
    total = degrees.sum()
    if total <= 0:
        return 0.0
    same = labels[:, None] == labels[None, :]
    expected = np.outer(degrees, degrees) / total
    return float((weights - expected)[same].sum() / total)

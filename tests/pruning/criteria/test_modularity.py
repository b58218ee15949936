from __future__ import annotations

import numpy as np
import pytest

from redtest_onnx.pruning.criteria.modularity import modularity


def reference(features: np.ndarray, labels: np.ndarray, k: int) -> float:  # type: ignore[type-arg]
    """The definition, edge by edge."""
    n = len(features)
    cosine = [
        [float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) for b in features.astype(float)]
        for a in features.astype(float)
    ]
    weight = np.zeros((n, n))
    for i in range(n):
        for j in sorted((j for j in range(n) if j != i), key=lambda j: -cosine[i][j])[:k]:
            weight[i, j] = max(cosine[i][j], 0)
    weight = (weight + weight.T) / 2
    two_m = weight.sum()
    return float(
        sum(
            weight[i, j] - weight[i].sum() * weight[j].sum() / two_m
            for i in range(n)
            for j in range(n)
            if labels[i] == labels[j]
        )
        / two_m
    )


def test_equals_the_definition() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(40, 6)).astype(np.float32), rng.integers(0, 4, 40)
    assert modularity(features, labels) == pytest.approx(reference(features, labels, 3), abs=1e-9)


def test_separated_classes_score_high_and_mixed_ones_near_zero() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 20)
    apart = np.eye(4)[labels] * 10 + rng.normal(size=(80, 4))
    assert modularity(apart, labels) > 0.7
    assert abs(modularity(rng.normal(size=(80, 50)), labels)) < 0.2


def test_scale_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(30, 5)), rng.integers(0, 3, 30)
    assert modularity(features * 1e6, labels) == pytest.approx(modularity(features, labels), abs=1e-9)


def test_silent_features_have_no_communities() -> None:
    assert modularity(np.zeros((10, 3)), np.arange(10) % 2) == 0.0


def test_too_few_samples() -> None:
    with pytest.raises(ValueError, match="3 samples"):
        modularity(np.ones((3, 2)), np.arange(3))

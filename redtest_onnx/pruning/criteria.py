"""Criteria: each puts the removable layers in the order in which they should go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from redtest_onnx.analysis import Analysis
from redtest_onnx.errors import InputError
from redtest_onnx.graph.layers import Layer


@dataclass(frozen=True)
class Scored:
    """A layer with what its criterion thinks of it: the higher, the better it can go."""

    layer: Layer
    score: float


Criterion = Callable[[Analysis, int], list[Scored]]
"""Takes the analysis and a seed; returns the candidates, first to go first."""

_CRITERIA: dict[str, Criterion] = {}


def criterion(name: str) -> Callable[[Criterion], Criterion]:
    """Register a criterion under a name for the command line."""

    def register(function: Criterion) -> Criterion:
        _CRITERIA[name] = function
        return function

    return register


def names() -> tuple[str, ...]:
    """All criteria."""
    return tuple(_CRITERIA)


def rank(name: str, analysis: Analysis, seed: int = 0) -> list[Scored]:
    """The removable layers in the order in which a criterion lets them go.

    Raises:
        InputError: no such criterion.
    """
    if name not in _CRITERIA:
        raise InputError(f"there is no criterion {name!r}", hint=f"one of {', '.join(_CRITERIA)}")
    return _CRITERIA[name](analysis, seed)


@criterion("redtest")
def redtest(analysis: Analysis, seed: int = 0) -> list[Scored]:
    """Similarity of each layer with the one before it (RedTest, Algorithm 3, one shot).

    The later layer of a similar pair goes, the shallower one stays. Layers of undefined similarity are no
    candidates.
    """
    scored = [
        Scored(layer, similarity)
        for layer, similarity in zip(analysis.layers[1:], analysis.adjacent, strict=True)
        if layer.removable and not np.isnan(similarity)
    ]
    return sorted(scored, key=lambda item: -item.score)


@criterion("random")
def random(analysis: Analysis, seed: int = 0) -> list[Scored]:
    """Any order: what every other criterion must beat."""
    candidates = _candidates(analysis)
    scores = np.random.default_rng(seed).permutation(len(candidates)) / max(len(candidates), 1)
    scored = [Scored(layer, float(score)) for layer, score in zip(candidates, scores, strict=True)]
    return sorted(scored, key=lambda item: -item.score)


@criterion("tail")
def tail(analysis: Analysis, seed: int = 0) -> list[Scored]:
    """The deepest layers first."""
    return [Scored(layer, float(layer.index)) for layer in reversed(_candidates(analysis))]


def above_threshold(analysis: Analysis, threshold: float, allowed: Callable[[Layer], bool]) -> list[Scored]:
    """RedTest's Algorithm 3: walk the layers; one as similar to the last kept layer as `threshold` goes.

    Args:
        analysis: what was measured.
        threshold: similarity from which on the later layer of a pair goes.
        allowed: whether a layer may go at all; layers that may not are kept and compared with.
    """
    chosen: list[Scored] = []
    kept = analysis.layers[0]
    for layer in analysis.layers[1:]:
        similarity = float(analysis.similarity[kept.index, layer.index])
        if layer.removable and allowed(layer) and similarity >= threshold:
            chosen.append(Scored(layer, similarity))
        else:
            kept = layer
    return chosen


def _candidates(analysis: Analysis) -> list[Layer]:
    return [layer for layer in analysis.layers if layer.removable]

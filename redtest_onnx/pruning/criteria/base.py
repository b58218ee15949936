"""Criteria: each puts the removable layers in the order in which they should go.

A criterion is one function with one registration. Other packages add theirs through the entry point group
`redtest_onnx.criteria`: the entry's name is the criterion's, its object the function.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from redtest_onnx.arrays import Indices
from redtest_onnx.data.dataset import Dataset
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.layers.layer import Layer
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis


@dataclass(frozen=True)
class CriterionContext:
    """What a criterion can ask.

    Attributes:
        bench: the model, with its branches inlined, and samples for it.
        analysis: its layers and their similarity.
        allowed: whether a layer may go; protected ones may not.
        worth: what taking a layer out is worth by itself, given what has been taken so far: 1 where layers
            are counted, its part in what is still missing where a size is to be reached. Criteria that go
            step by step ask for it anew each time.
        known: what criteria have found for this context, by a key of theirs, kept for further budgets.
    """

    bench: Workbench
    analysis: Analysis
    allowed: Callable[[Layer], bool] = lambda layer: True
    worth: Callable[[Layer], float] = lambda layer: 1.0
    known: dict[Hashable, object] = field(default_factory=dict, compare=False, repr=False)

    @property
    def model(self) -> Model:
        """The model whose layers are ranked."""
        return self.bench.model

    @property
    def data(self) -> Dataset:
        """Calibration samples."""
        return self.bench.data

    @property
    def indices(self) -> Indices:
        """The samples to go by: those that are fitted to, none of which judges the result."""
        return self.bench.splits.fit

    @property
    def candidates(self) -> list[Layer]:
        """The layers that may go, in the order of the graph."""
        return [layer for layer in self.analysis.layers if layer.removable and self.allowed(layer)]


@dataclass(frozen=True)
class ScoredLayer:
    """A layer with what its criterion thinks of it: the higher, the better it can go."""

    layer: Layer
    score: float


@runtime_checkable
class SetChoice(Protocol):
    """Sets of layers to choose among, where a criterion prices sets and not single layers.

    It is an order of layers, too, for those who want one.
    """

    @property
    def largest(self) -> int:
        """Layers of the largest set."""

    def of_count(self, count: int) -> list[ScoredLayer] | None:
        """The cheapest set of so many layers; None where there is none."""

    def least(self, meets: Callable[[Sequence[ScoredLayer]], bool]) -> list[ScoredLayer] | None:
        """The cheapest set that meets a condition; None where none does."""

    def __iter__(self) -> Iterator[ScoredLayer]:
        """The layers one by one."""


Criterion = Callable[[CriterionContext], Iterable[ScoredLayer]]
"""Returns or yields the candidates, first to go first; no more are taken than a budget asks for."""
OneCriterion = TypeVar("OneCriterion", bound=Criterion)

_GROUP = "redtest_onnx.criteria"
_CRITERIA: dict[str, Criterion] = {}


def criterion(name: str) -> Callable[[OneCriterion], OneCriterion]:
    """Register a criterion under a name for the command line."""

    def register(function: OneCriterion) -> OneCriterion:
        _CRITERIA[name] = function
        return function

    return register


def names() -> tuple[str, ...]:
    """All criteria, those of other packages behind ours."""
    order = [__name__]
    for module in ("functional", "recoverable", "supervised", "segments", "spread"):
        order.append(import_module(f"redtest_onnx.pruning.criteria.{module}").__name__)
    # Whatever was imported first: the order is that of the documents.
    place = {
        name: order.index(made.__module__) for name, made in _CRITERIA.items() if made.__module__ in order
    }
    ours = sorted(_CRITERIA, key=lambda name: place.get(name, len(order)))
    return tuple(dict.fromkeys((*ours, *(entry.name for entry in entry_points(group=_GROUP)))))


def rank(name: str, context: CriterionContext) -> Iterator[ScoredLayer]:
    """The removable layers in the order in which a criterion lets them go.

    Raises:
        InputError: no such criterion.
    """
    return iter(proposals(name, context))


def proposals(name: str, context: CriterionContext) -> Iterable[ScoredLayer]:
    """What a criterion returns: an order of the removable layers, or a `SetChoice`.

    Raises:
        InputError: no such criterion.
    """
    if name not in names():
        raise InputError(f"there is no criterion {name!r}", hint=f"one of {', '.join(names())}")
    function = _CRITERIA.get(name)
    if function is None:
        found = {entry.name: entry for entry in entry_points(group=_GROUP)}
        function = found[name].load()
    found_layers: Iterable[ScoredLayer] = function(context)
    return found_layers


@criterion("redtest")
def redtest(context: CriterionContext) -> list[ScoredLayer]:
    """Similarity of each layer with the one before it (after RedTest's Algorithm 3, one shot).

    The later layer of a similar pair goes, the shallower one stays. Layers of undefined similarity are no
    candidates.
    """
    analysis, candidates = context.analysis, set(context.candidates)
    scored = [
        ScoredLayer(layer, similarity)
        for layer, similarity in zip(analysis.layers[1:], analysis.adjacent, strict=True)
        if layer in candidates and not np.isnan(similarity)
    ]
    return sorted(scored, key=lambda item: -item.score)


@criterion("redtest-adjacent")
def redtest_adjacent(context: CriterionContext) -> Iterable[ScoredLayer]:
    """RedTest's Algorithm 3 as printed: each layer against the one before it, whether that one goes or not.

    Differs from "redtest" only with a threshold, where that one compares with the last *kept* layer, which is
    ours: here `current` moves on at every step, so that a chain of small changes can go as a whole.
    """
    return redtest(context)


@criterion("random")
def random(context: CriterionContext) -> list[ScoredLayer]:
    """Any order: what every other criterion must beat."""
    candidates = context.candidates
    scores = np.random.default_rng(context.bench.seed).permutation(len(candidates)) / max(len(candidates), 1)
    scored = [ScoredLayer(layer, float(score)) for layer, score in zip(candidates, scores, strict=True)]
    return sorted(scored, key=lambda item: -item.score)


@criterion("tail")
def tail(context: CriterionContext) -> list[ScoredLayer]:
    """The deepest layers first."""
    return [ScoredLayer(layer, float(layer.index)) for layer in reversed(context.candidates)]


def above_threshold(context: CriterionContext, threshold: float) -> list[ScoredLayer]:
    """The candidates as similar to the last layer that stays, see `Analysis.repeated`."""
    repeated = context.analysis.repeated(threshold, set(context.candidates).__contains__)
    return [ScoredLayer(layer, similarity) for layer, similarity in repeated]

"""The criterion that prices sets of layers: a beam along each stage, with a fit in front of each gap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from redtest_onnx.arrays import Numbers
from redtest_onnx.graph.linear_operators import linear_operators
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.criteria.base import CriterionContext, criterion
from redtest_onnx.pruning.criteria.gap_fits import GapFits
from redtest_onnx.pruning.criteria.layer_sets import LayerSets, PricedSet, cheapest_of_each_size
from redtest_onnx.pruning.repair.partial_runner import Part, PartialRunner
from redtest_onnx.pruning.repair.positions import silenced
from redtest_onnx.pruning.repair.targets import before_activation, bend_alike, is_read_outside

Runs = list[Numbers]

_SAMPLES, _FEWEST = 192, 48  # two thirds to fit to
_STATE_BYTES = 64 << 20
_PARTS = 6
_LONGEST = 3  # layers of a gap, unless all up to the next layer that stays go
_WIDTH = 2  # states per position and number of layers


@criterion("spread")
def spread(context: CriterionContext) -> LayerSets:
    """Choose sets whose gaps are priced together, each stage giving its share.

    Along the layers of a stage, which ends where the shape changes, states are followed that differ in what
    was removed. The operator in front of a gap is fitted to the original's values behind it, given all gaps
    before; per position and number of layers the two states of least error go on. Every other layer is always
    among the sets. Price of a set: the squared relative error of the outputs, summed over stages. Adapters
    are never chosen.
    """
    return _found(context, StageSearch.priced)


@criterion("every-other")
def every_other(context: CriterionContext) -> LayerSets:
    """In some stages every other layer, in the others none: what a choice of sets must beat.

    Prices are those of `spread`; so of the two patterns of a stage, and of several stages, the cheapest go.
    """
    return _found(context, StageSearch.patterns)


@criterion("best-of")
def best_of(context: CriterionContext) -> LayerSets:
    """The best of redtest, spread and every-other for a budget, see `pruning.best_of`."""
    return spread(context)


def _found(context: CriterionContext, search: Callable[[StageSearch], list[PricedSet]]) -> LayerSets:
    """What a search gives for all stages, found once for the layers that may go."""
    allowed = set(context.candidates)
    key = search.__name__, frozenset(layer.name for layer in allowed)
    known = context.known.get(key)
    if not isinstance(known, LayerSets):
        known = LayerSets([search(StageSearch(context, stage, allowed)) for stage in stages(context)])
        context.known[key] = known
    return known


def stages(context: CriterionContext) -> list[tuple[Layer, ...]]:
    """Bypass layers directly behind one another, where one of them may go at least."""
    found: list[list[Layer]] = []
    for layer in context.analysis.layers:
        if layer.action != "bypass":
            continue
        if found and found[-1][-1].exit == layer.input:
            found[-1].append(layer)
        else:
            found.append([layer])
    allowed = set(context.candidates)
    return [tuple(stage) for stage in found if not allowed.isdisjoint(stage)]


@dataclass(frozen=True)
class _State:
    """A stage up to one of its positions.

    Attributes:
        position: number of layers that lie behind.
        removed: positions of those that are gone.
        values: the activation there, run by run.
        error: squared distance from the original's, on the samples that judge.
    """

    position: int
    removed: tuple[int, ...]
    values: Runs
    error: float


class StageSearch:
    """Prices of sets of the layers of one stage.

    Args:
        context: the model.
        layers: of the stage, each starting from what the one before gives.
        allowed: those that may go.
    """

    def __init__(self, context: CriterionContext, layers: Sequence[Layer], allowed: set[Layer]) -> None:
        bench = context.bench
        self._layers, self._bench, self._index = layers, bench, bench.index
        self._allowed = [layer in allowed for layer in layers]
        self._ends = [layers[0].input or "", *(layer.exit for layer in layers)]
        self._before = [before_activation(self._index, end) for end in self._ends]
        indices = context.indices[: self._count()]
        size = max(1, -(-len(indices) // _PARTS))
        self._runner = PartialRunner(bench, indices, size=size)
        self._plain = PartialRunner(bench, indices, size=size)  # keeps nothing
        self._parts: dict[int, Part] = {}
        self._activations: dict[int, Part] = {}
        runs = len(self._runner.counts)
        self._fitted = list(range(max(1, runs * 2 // 3)))
        self._judged = list(range(len(self._fitted), runs)) or self._fitted
        self._counted = [self._runner.counted(run) for run in range(runs)]
        self._operators = {operator.target: operator for operator in linear_operators(bench.model)}
        self._fits: dict[int, GapFits] = {}
        self._entry = self._computed(0, None)
        for _ in self._runner.values((), advance_to=min(self._index.between(self._ends[0], self._ends[1]))):
            pass  # what lies in front of the stage is kept
        names = [*self._ends, *(before for before, _ in self._before)]
        original = list(self._runner.values(names))
        self._original = {
            name: [self._cut(found[name], k) for k, found in enumerate(original)] for name in names
        }

    def priced(self) -> list[PricedSet]:
        """All sets that were followed to the end, none included; of equal size the cheaper first."""
        return self._priced([*self._beam(), *self._every_other()])

    def sets(self) -> list[PricedSet]:
        """The cheapest set of each number of layers, none included."""
        return cheapest_of_each_size(self.priced())

    def patterns(self) -> list[PricedSet]:
        """Every other layer from the second on or from the first on, the cheaper of equal size, and none."""
        return cheapest_of_each_size(self._priced(self._every_other()))

    def _every_other(self) -> list[_State]:
        patterns = [
            tuple(k for k in range(phase, len(self._layers), 2) if self._allowed[k]) for phase in (1, 0)
        ]
        return [self._followed(pattern) for pattern in patterns]

    def _priced(self, ended: Iterable[_State]) -> list[PricedSet]:
        price = self._prices()
        found: dict[tuple[int, ...], PricedSet] = {(): PricedSet((), 0.0)}
        for state in ended:
            if state.removed:
                item = PricedSet(tuple(self._layers[k] for k in state.removed), price(state))
                known = found.get(state.removed)
                if known is None or item.key < known.key:
                    found[state.removed] = item
        return sorted(found.values(), key=lambda item: (len(item.layers), item.key))

    def price(self, removed: Iterable[Layer]) -> float:
        """What taking out some layers of the stage costs."""
        gone = set(removed)
        state = self._followed(tuple(k for k, layer in enumerate(self._layers) if layer in gone))
        return self._prices()(state) if gone else 0.0

    def _count(self) -> int:
        """Samples whose states stay small."""
        shape = self._bench.shapes.sizes.get(self._ends[0], ())
        size = 4 * int(np.prod(shape, dtype=np.int64)) // (self._bench.resolved.batch or 1)
        return min(_SAMPLES, max(_FEWEST, _STATE_BYTES // max(size, 1)))

    def _cut(self, value: Numbers, run: int) -> Numbers:
        found: Numbers = self._runner.counting(value, run) if value.ndim else value
        return found

    def _beam(self) -> list[_State]:
        waiting: list[dict[int, list[_State]]] = [{} for _ in self._ends]

        def put(states: Iterable[_State]) -> None:
            for state in states:
                rivals = waiting[state.position].setdefault(len(state.removed), [])
                rivals.append(state)
                rivals.sort(key=lambda item: (item.error, item.removed))
                del rivals[_WIDTH:]

        put(self._next(None, self._gaps(0)))
        for position in range(len(self._layers)):
            for states in waiting[position].values():
                for state in states:
                    put(self._next(state, self._gaps(position + 1)))
            waiting[position] = {}
        return [state for states in waiting[-1].values() for state in states]

    def _gaps(self, position: int) -> list[int]:
        """Lengths of the gaps that may start at a position."""
        run = next((k for k, free in enumerate(self._allowed[position:]) if not free), None)
        run = len(self._layers) - position if run is None else run
        return sorted({*range(min(_LONGEST, run) + 1), run})

    def _followed(self, removed: tuple[int, ...]) -> _State:
        """The state at the stage's end without some layers."""
        gone, state = set(removed), None
        while state is None or state.position < len(self._layers):
            start = stop = 0 if state is None else state.position + 1
            while stop in gone:
                stop += 1
            (state,) = self._next(state, [stop - start])
        return state

    def _computed(self, position: int, state: _State | None) -> list[dict[str, Numbers]]:
        """What the operator in front of a position reads, and what lies in front of its activation there."""
        before = self._before[position][0]
        operator = self._operators.get(before)
        names = [before] if operator is None else [operator.input, before]
        given = {} if state is None else {self._ends[state.position]: state.values[0]}
        if position not in self._parts:
            self._parts[position] = self._runner.part(names, given)
        part = self._parts[position]
        found = []
        for run, _ in enumerate(self._runner.counts):
            fed = {} if state is None else {self._ends[state.position]: self._filled(state.values[run], run)}
            values = part(run, fed)
            found.append({name: self._cut(values[name], run) for name in names})
        return found

    def _filled(self, value: Numbers, run: int) -> Numbers:
        """Values of a whole run again, where a fixed batch wants more samples than count."""
        fixed = self._bench.fixed_batch
        if fixed is None or self._runner.counts[run] == fixed or not value.ndim:
            return value
        return np.resize(value, (fixed, *value.shape[1:]))

    def _next(self, state: _State | None, gaps: Sequence[int]) -> list[_State]:
        """The states behind the next layer and gaps of some lengths."""
        start = 0 if state is None else state.position + 1
        removed = () if state is None else state.removed
        computed = self._entry if state is None else self._computed(start, state)
        before, functions = self._before[start]
        plain = [values[before] for values in computed]
        operator = self._operators.get(before)
        fitted = [
            gap for gap in gaps if (removed or gap) and operator is not None and self._fits_gap(start, gap)
        ]
        corrections: dict[int, tuple[Numbers, Numbers]] = {}
        if fitted and operator is not None:
            if start not in self._fits:
                self._fits[start] = GapFits(
                    self._bench.model, operator, self._bench.options, self._bench.seed
                )
            goals = [self._original[self._before[start + gap][0]] for gap in fitted]
            solved = self._fits[start].solve(
                [computed[run][operator.input] for run in self._fitted],
                [[goal[run] - plain[run] for run in self._fitted] for goal in goals],
                [self._counted[run] for run in self._fitted],
            )
            corrections = dict(zip(fitted, solved or (), strict=False))
        found = []
        for gap in gaps:
            values = plain
            if gap in corrections and operator is not None:
                fit = self._fits[start]
                values = [
                    (v + fit.output(computed[run][operator.input], corrections[gap])).astype(v.dtype)
                    for run, v in enumerate(plain)
                ]
            if functions:
                values = self._activated(start, values)
            end, gone = start + gap, (*removed, *range(start, start + gap))
            found.append(_State(end, gone, values, self._distance(self._ends[end], values)))
        return found

    def _fits_gap(self, start: int, gap: int) -> bool:
        """Whether what lies behind a gap can be a goal for the operator in front of it, as in `gap_goals`."""
        if gap == 0:
            return True
        first, last = self._ends[start], self._ends[start + gap]
        alone = not is_read_outside(self._index, first, last)
        same = self._before[start][1] == self._before[start + gap][1]
        return alone and same and bend_alike(self._index, first, last)

    def _activated(self, position: int, values: Runs) -> Runs:
        name, end = self._before[position][0], self._ends[position]
        if position not in self._activations:
            self._activations[position] = self._plain.part([end], {name: values[0]})
        part = self._activations[position]
        return [self._cut(part(run, {name: self._filled(v, run)})[end], run) for run, v in enumerate(values)]

    def _distance(self, end: str, values: Runs) -> float:
        """Squared distance from the original's values on the samples that judge."""
        original = self._original[end]
        return _finite(sum(self._squares(values[run], original[run], run) for run in self._judged))

    def _squares(self, values: Numbers, original: Numbers, run: int) -> float:
        apart = silenced(values.astype(np.float64) - original.astype(np.float64), self._counted[run])
        return float(np.square(apart).sum())

    def _prices(self) -> Callable[[_State], float]:
        """What gives the mean of the outputs' squared relative errors for states at the stage's end."""
        end = self._ends[-1]
        behind = self._index.reached(end)
        outputs = [
            name for name in self._index.outputs if name in behind and self._bench.shapes.is_float(name)
        ]
        outputs = outputs or [end]
        part = self._runner.part(outputs, {end: self._original[end][0]})

        def computed(values: Runs) -> list[dict[str, Numbers]]:
            found = [(run, part(run, {end: self._filled(values[run], run)})) for run in self._judged]
            return [{name: self._cut(out[name], run) for name in outputs} for run, out in found]

        reference = computed(self._original[end])

        def price(state: _State) -> float:
            errors, sizes = dict.fromkeys(outputs, 0.0), dict.fromkeys(outputs, 0.0)
            for run, mine, theirs in zip(self._judged, computed(state.values), reference, strict=True):
                for name in outputs:
                    size = self._squares(theirs[name], np.zeros_like(theirs[name]), run)
                    sizes[name] += size
                    same = mine[name].shape == theirs[name].shape
                    errors[name] += self._squares(mine[name], theirs[name], run) if same else size
            return _finite(np.mean([errors[name] / max(sizes[name], 1e-30) for name in outputs]))

        return price


def _finite(value: Any) -> float:
    """A number to go by; states of which nothing can be said come last."""
    return float(value) if np.isfinite(value) else float(np.finfo(np.float64).max) / 1e6

"""Apply a plan: take its layers out of the model, with adapters where shapes need them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.linear_operators import linear_operators
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.surgery import Removal, remove_regions
from redtest_onnx.layers.adaptation import adaptable
from redtest_onnx.layers.layout import channels_first
from redtest_onnx.pruning.adapters import plain_adapter
from redtest_onnx.pruning.narrowing import narrowed
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.repair.targets import before_activation
from redtest_onnx.runtime.workbench import Workbench

_MOST_AXES = 4  # samples, channels, rows, columns


def apply_plan(bench: Workbench, plan: Plan) -> Model:
    """Take the plan's layers out of the model.

    Args:
        bench: the model the plan was made for, with its branches inlined; adapters are built for its shapes.
        plan: what to take out.

    Raises:
        InputError: the graph can't be edited.
    """
    removals = []
    for step in plan.steps:
        adapter = plain_adapter(bench, step.input, step.tensor) if step.action == "adapter" else ()
        removals.append(Removal(step.input, step.tensor, adapter))
    return narrowed(remove_regions(bench.model, removals), plan)


@dataclass(frozen=True)
class AdapterInsertion:
    """A pruned model whose gaps can be fitted.

    Attributes:
        model: the model.
        exits: exits of gaps that hold an adapter, though shapes would fit without.
    """

    model: Model
    exits: frozenset[str] = frozenset()


def apply_with_adapters(bench: Workbench, plan: Plan, kernel: int) -> AdapterInsertion:
    """Take the plan's layers out and put an adapter into every gap, also where shapes would fit without.

    Args:
        bench: as in `apply_plan`; tensors of an unknown shape get no adapter.
        plan: what to take out.
        kernel: size of the convolution of an adapter between images.

    Raises:
        InputError: the graph can't be edited.
    """
    index = bench.index
    linear = {operator.target for operator in linear_operators(bench.model)}
    removals, exits = [], set()
    for steps in _gaps(plan.steps):
        entry, exit_ = steps[0].input, steps[-1].tensor
        if steps[0].action == "bypass" and entry in linear and _ends_linearly(index, entry, exit_):
            removals.append(Removal(entry, exit_))  # the operator in front takes the adapter in
            continue
        fits = steps[0].action == "adapter" or _adaptable(bench, entry, exit_)
        if fits and steps[0].action == "bypass":
            exits.add(exit_)
        adapter = plain_adapter(bench, entry, exit_, kernel) if fits else ()
        removals.append(Removal(entry, exit_, adapter))
    return AdapterInsertion(narrowed(remove_regions(bench.model, removals), plan), frozenset(exits))


def _ends_linearly(index: GraphIndex, entry: str, exit_: str) -> bool:
    """Whether nothing but the gap reads its entry, and no activation function ends it."""
    inside = index.between(entry, exit_)
    alone = all(reader in inside for reader in index.readers.get(entry, ()))
    return alone and before_activation(index, exit_)[0] == exit_


def _adaptable(bench: Workbench, entry: str, exit_: str) -> bool:
    """Whether an adapter fits in, and can be fitted: convolutions in three dimensions can't."""
    shapes = bench.shapes
    before, after = shapes.sizes.get(entry, ()), shapes.sizes.get(exit_, ())
    if not 2 <= len(before) <= _MOST_AXES or not shapes.is_float(exit_):
        return False
    return adaptable(before, after, channels_first(bench.index, entry, exit_, len(before)))


def _gaps(steps: Iterable[Step]) -> list[list[Step]]:
    """Steps whose layers lie directly behind one another and keep the shape, together; others alone."""
    gaps: list[list[Step]] = []
    for step in steps:
        behind = gaps and gaps[-1][-1].tensor == step.input
        if behind and step.action == gaps[-1][-1].action == "bypass":
            gaps[-1].append(step)
        else:
            gaps.append([step])
    return gaps

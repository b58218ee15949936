"""Apply what was done to one model to another that holds the same network.

A merged decoder has two branches, one for the first step and one for those with a cache; exporters also write
both as files of their own. They hold the same layers and the same weights, and must stay alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.errors import InputError
from redtest_onnx.graph.index import captured, index_of
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.weights import change_operands
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.verify import verify, verify_removal
from redtest_onnx.runtime.workbench import Workbench


def follow_plan(bench: Workbench, pruned: Model, plan: Plan, partner: Workbench) -> Model:
    """Take the same layers out of another model of the same network, and give it the same repaired weights.

    Args:
        bench: the opened model that the plan was made for.
        pruned: what became of it.
        plan: what was taken out.
        partner: the other opened model.

    Raises:
        InputError: the other model has other layers, or its operators are called otherwise.
    """
    _refuse_widths(plan, partner)
    same = _same_plan(bench, plan, partner)
    followed = apply_plan(partner, same)
    verify_removal(partner, followed, same)
    changes = dict(_changes(bench.model, pruned, partner.model, followed))
    return change_operands(followed, changes) if changes else followed


def prune_partner(bench: Workbench, pruned: Model, plan: Plan, partner: Workbench) -> Model:
    """As `follow_plan` for a model in a file of its own; the result is verified.

    Raises:
        InputError: see `follow_plan`.
        InternalError: the result doesn't verify.
    """
    followed = follow_plan(bench.opened, pruned, plan, partner.opened)
    closed = partner.view.close(followed)
    verify(partner, partner.successor(closed))
    return closed


def close_with_twin(bench: Workbench, pruned: Model, plan: Plan) -> Model:
    """The pruned model with its branches closed; the other branch of a merged decoder is pruned alike.

    Raises:
        InputError: see `follow_plan`.
    """
    twin = bench.twin
    if twin is None or plan.empty:
        return bench.view.close(pruned)
    _refuse_widths(plan, twin)
    followed = follow_plan(bench.opened, pruned, plan, twin.opened)
    other = twin.view.reassemble(followed)
    choice, mine = twin.view.choices[0], bench.view.reassemble(pruned)
    return bench.view.close_up(_graft(mine, other, choice.branch, choice.node.output[0]))


def _refuse_widths(plan: Plan, partner: Workbench) -> None:
    if plan.widths:
        raise InputError(
            "channels of inner widths can't be taken from two models of one network",
            where=partner.label,
            hint="leave out @width",
        )


def _graft(model: Model, other: Model, branch: str, output: str) -> Model:
    """The model with one branch of an If taken from another version of it."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    mine, theirs = (_if_node(graph, output) for graph in (proto.graph, other.graph))
    if list(mine.output) != list(theirs.output):
        raise InputError(
            "the branches of the merged decoder give different caches without these layers",
            where=model.label,
            hint="remove whole blocks (@granularity=block)",
        )
    source = next(attribute for attribute in theirs.attribute if attribute.name == branch)
    for attribute in mine.attribute:
        if attribute.name == branch:
            attribute.CopyFrom(source)
    stored = {tensor.name for tensor in proto.graph.initializer}
    wanted = {
        name for attribute in mine.attribute if attribute.HasField("g") for name in captured(attribute.g)
    }
    missing = [name for name in wanted - stored if name in other.initializers]
    proto.graph.initializer.extend(other.initializers[name] for name in sorted(missing))
    for i in reversed(range(len(proto.graph.initializer))):
        name = proto.graph.initializer[i].name
        if name in other.initializers and name not in wanted and not _read_outside(proto.graph, mine, name):
            del proto.graph.initializer[i]
    return model.edited(proto)


def _read_outside(graph: onnx.GraphProto, node: onnx.NodeProto, name: str) -> bool:
    return any(name in other.input for other in graph.node if other.output[0] != node.output[0])


def _if_node(graph: onnx.GraphProto, output: str) -> onnx.NodeProto:
    return next(node for node in graph.node if node.op_type == "If" and output in node.output)


def _same_plan(bench: Workbench, plan: Plan, partner: Workbench) -> Plan:
    names = [step.region for step in plan.steps]
    granularity = plan.granularity(bench)
    if granularity is None:
        raise InputError(f"the plan names layers that are not in {bench.label}: {', '.join(names)}")
    own = {layer.name: layer for layer in bench.layers(granularity)}
    found = [_counterpart(tuple(own.values()), own[name], partner.layers(granularity)) for name in names]
    if any(layer is None for layer in found):
        missing = names[found.index(None)]
        raise InputError(
            f"has no layer like {missing!r}", where=partner.label, hint="export both files together"
        )
    steps = tuple(
        replace(Step.of(layer), score=step.score)
        for layer, step in zip(found, plan.steps, strict=True)
        if layer is not None
    )
    return Plan(plan.criterion, partner.digest, steps)


def _counterpart(own: tuple[Layer, ...], layer: Layer, others: tuple[Layer, ...]) -> Layer | None:
    """The layer of the same name, else the one at the same place of a series that is as long."""
    named = next((other for other in others if other.name == layer.name), None)
    if named is not None or len(own) != len(others):
        return named
    placed = others[layer.index]
    return placed if placed.kind == layer.kind else None


def _changes(
    original: Model, pruned: Model, partner: Model, followed: Model
) -> Iterator[tuple[tuple[int, str], npt.NDArray[Any]]]:
    """New values of the partner's operands: those that a repair gave to the nodes of the same names."""
    before, after = (
        {node.name: node for node in model.graph.node if node.name} for model in (original, pruned)
    )
    theirs = {node.name: i for i, node in enumerate(followed.graph.node) if node.name}
    if fresh := [name for name in after if name not in before]:
        raise InputError(
            f"its adapters, such as {fresh[0]!r}, can't be carried over to {partner.label}",
            where=original.label,
            hint="@repair=refit, or @repair=none",
        )
    index = index_of(followed)
    for name, node in after.items():
        for k, operand in enumerate(node.input):
            if operand not in pruned.initializers or k >= len(before[name].input):
                continue
            old = original.initializers.get(before[name].input[k])
            new = pruned.initializers[operand]
            if old is None or old.SerializeToString() == new.SerializeToString():
                continue
            values = pruned.value(new)
            if old.name != new.name and np.array_equal(original.value(old), values):
                continue
            i = theirs.get(name)
            target = (
                followed.graph.node[i].input[k]
                if i is not None and k < len(followed.graph.node[i].input)
                else ""
            )
            if i is None or target not in index.initializers:
                raise InputError(
                    f"has no operator {name!r} to take over its new weights", where=partner.label
                )
            if tuple(index.initializers[target].dims) != values.shape:
                raise InputError(
                    f"the resized operator {name!r} can't be carried over to {partner.label}",
                    where=original.label,
                    hint="@repair=refit, or @repair=none",
                )
            yield (i, target), values

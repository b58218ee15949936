"""Layers inside a step that no cut tensor divides, as where two streams exchange values in every layer.

A graph network with a virtual node is one: the state of its nodes and that of the virtual node go side by
side, and every tensor that leads on leaves the other out. Inside lie parts with one entry and one exit: the
program structure tree of Johnson, Pearson and Pingali (PLDI 1994), here on tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.layers.dominators import FlowStep, immediate_dominators, weighted

_SOURCE = ""
# Fewer operators with weights than these may well be one layer.
_LARGEST_BLOCK = 8


def majority_steps(index: GraphIndex, steps: Iterable[FlowStep]) -> Iterator[FlowStep]:
    """The steps that hold more than half of the operators with weights."""
    for step in steps:
        inside = len(step.nodes & index.weighted)
        if inside > _LARGEST_BLOCK and 2 * inside > len(index.weighted):
            yield step


def nested_chains(index: GraphIndex, step: FlowStep) -> list[list[FlowStep]]:
    """The parts with one entry and one exit inside a step, in chains of such that follow one another.

    Args:
        index: the graph.
        step: holds them.
    """
    before, behind = _dominators(index, step)
    following = {
        tensor: exit_
        for tensor, exit_ in behind.items()
        if exit_ != step.exit and before.get(exit_) == tensor and tensor != _SOURCE
    }
    exits = set(following.values())
    applied = {index.nodes[node].output[0]: node for node in sorted(step.nodes & index.weighted)}
    starts = [
        tensor for tensor in before if tensor not in exits and (tensor in following or tensor in applied)
    ]
    chains = []
    for start in starts:
        chain, tensor = _alone(index, applied, start, step), start
        while tensor in following:
            exit_ = following[tensor]
            chain.append(FlowStep(tensor, exit_, index.between(tensor, exit_)))
            tensor = exit_
        if any(weighted(index, part) for part in chain):
            chains.append(chain)
    return chains


def _alone(index: GraphIndex, applied: dict[str, int], tensor: str, step: FlowStep) -> list[FlowStep]:
    """The operator with weights that makes a tensor of one that others read, too."""
    if tensor not in applied or tensor == step.exit:
        return []
    entries = index.activation_inputs(applied[tensor])
    return [FlowStep(entries[0], tensor, frozenset({applied[tensor]}))] if len(entries) == 1 else []


def _dominators(index: GraphIndex, step: FlowStep) -> tuple[dict[str, str], dict[str, str]]:
    """For each tensor inside a step the last one on all paths to it, and the first on all paths from it."""
    inner = {name for node in step.nodes for name in index.nodes[node].output if name in index.activations}
    steps: list[tuple[list[str], list[str]]] = []
    read_by: dict[str, list[str]] = {}
    for node in sorted(step.nodes):
        inputs = index.activation_inputs(node)
        sources = [name for name in inputs if name in inner]
        sources += [_SOURCE] * (not inputs or any(name not in inner for name in inputs))
        made = [name for name in index.nodes[node].output if name in inner]
        steps.append((sources, made))
        for source in sources:
            read_by.setdefault(source, []).extend(made)
    tensors = [_SOURCE, *(name for _, made in steps for name in made if name != step.exit)]
    back = [(read_by.get(name, []), [name]) for name in reversed(tensors)]
    return immediate_dominators(steps, _SOURCE), immediate_dominators(back, step.exit)

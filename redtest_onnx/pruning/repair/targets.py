"""What the operators of a pruned model should hit, and which of them see other values than before."""

from __future__ import annotations

from collections.abc import Iterable

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.surgery import adapter_output
from redtest_onnx.pruning.plan import Plan

_ADAPTER_LENGTH = 2  # a convolution with its bias, or a product with the bias behind it


def gap_goals(index: GraphIndex, plan: Plan, adapted: frozenset[str] = frozenset()) -> dict[str, str]:
    """What the operators before a gap should hit: the original's values behind it.

    Args:
        index: the original graph.
        plan: what was taken out.
        adapted: exits of bypassed layers in whose place an adapter stands nevertheless.

    Returns:
        Tensors of the pruned graph before the activation in front of a gap, and those of the original before
        the activation behind it.
    """
    ends: dict[str, str] = {}
    goals: dict[str, str] = {}
    for step in plan.steps:
        if step.action == "adapter" or step.tensor in adapted:
            for k in range(_ADAPTER_LENGTH):
                goals[adapter_output(step.tensor, k)] = before_activation(index, step.tensor)[0]
            continue
        start = next((first for first, last in ends.items() if last == step.input), step.input)
        ends[start] = step.tensor
    for start, end in ends.items():
        gap = index.between(start, end)
        if any(reader not in gap for reader in index.readers.get(start, ())):
            continue  # other nodes still read the old values
        (before, first), (behind, last) = before_activation(index, start), before_activation(index, end)
        if first == last:
            goals[before] = behind
    return goals


def before_activation(index: GraphIndex, tensor: str) -> tuple[str, tuple[str, ...]]:
    """The tensor in front of the activation functions that end in `tensor`, and those functions."""
    functions: list[str] = []
    while True:
        producer = index.producer.get(tensor)
        if producer is None or ops.qualified(index.nodes[producer]) not in ops.ACTIVATION:
            return tensor, tuple(functions)
        functions.append(ops.qualified(index.nodes[producer]))
        tensor = index.nodes[producer].input[0]


def changed_tensors(original: GraphIndex, pruned: GraphIndex, narrowed: Iterable[str] = ()) -> frozenset[str]:
    """Tensors of the pruned graph whose values differ from the original's, those with fewer channels too."""
    found: set[str] = set(narrowed)
    for i, node in enumerate(pruned.nodes):
        before = original.producer.get(node.output[0])
        if (
            before is None
            or original.reads[before] != pruned.reads[i]
            or not found.isdisjoint(pruned.reads[i])
        ):
            found.update(node.output)
            if before is not None and original.reads[before] != pruned.reads[i]:
                found.update(set(pruned.reads[i]) - set(original.reads[before]))
    return frozenset(found)

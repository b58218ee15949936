"""Which operators an execution provider takes, and what that does to a graph."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx

from redtest_onnx.auditing.profile import DeploymentTarget
from redtest_onnx.errors import InputError
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.model import subgraphs
from redtest_onnx.runtime.library import support_table

_FILES = {
    "nnapi": "nnapi_supported_ops.md",
    "coreml_mlprogram": "coreml_supported_mlprogram_ops.md",
    "coreml_neuralnetwork": "coreml_supported_neuralnetwork_ops.md",
}
_ROW = re.compile(r"^\|\s*([\w.]+):(\w+)\s*\|", re.MULTILINE)
# Folded before anything runs.
_FREE = frozenset({"Constant", "Identity"})


@dataclass(frozen=True)
class ProviderPartition:
    """How a graph falls apart between a provider and the CPU.

    Attributes:
        nodes: number of nodes that compute something.
        left: nodes the provider doesn't take, by operator.
        partitions: runs of consecutive nodes that it takes.
    """

    nodes: int
    left: dict[str, tuple[str, ...]]
    partitions: int

    @property
    def share(self) -> float:
        """Share of nodes that fall back."""
        return sum(map(len, self.left.values())) / max(self.nodes, 1)


def supported(target: DeploymentTarget) -> frozenset[str] | None:
    """Operators that a target takes, in lower case since tables differ there; None if it takes all.

    Raises:
        InputError: the installed onnxruntime lacks the table that the profile names.
    """
    if target.operators is not None:
        return frozenset(name.lower() for name in target.operators)
    if target.support is None:
        return None
    text = support_table(_FILES[target.support])
    if text is None:
        raise InputError(
            f"the installed onnxruntime has no table of what {target.support} supports",
            where="profile",
            hint="update onnxruntime, or list the operators in the profile",
        )
    return frozenset(
        (name if domain == "ai.onnx" else f"{domain}:{name}").lower() for domain, name in _ROW.findall(text)
    )


def split(nodes: Sequence[onnx.NodeProto], taken: frozenset[str]) -> ProviderPartition:
    """Which nodes of a graph, in its order, a provider leaves to the CPU."""
    left: dict[str, list[str]] = {}
    partitions, inside, count = 0, False, 0
    for node in nodes:
        name = ops.qualified(node)
        if name in _FREE:
            continue
        count += 1
        if name.lower() in taken:
            partitions += not inside
            inside = True
        else:
            left.setdefault(name, []).append(label(node))
            inside = False
    return ProviderPartition(count, {name: tuple(found) for name, found in left.items()}, partitions)


def count_of(number: int, one: str, several: str) -> str:
    """A number with its noun, in the singular or the plural."""
    return f"{number} {one if number == 1 else several}"


def label(node: onnx.NodeProto) -> str:
    """A node's name, or its first output where it has none."""
    return node.name or next(filter(None, node.output), node.op_type)


def every_node(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of a graph and of everything inside it."""
    for node in graph.node:
        yield node
        for child in subgraphs([node]):
            yield from every_node(child)


def operator_counts(graph: onnx.GraphProto) -> Counter[str]:
    """How often each operator is used, also inside subgraphs."""
    return Counter(ops.qualified(node) for node in every_node(graph))

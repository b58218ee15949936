"""Put the opened branch of an If back in its place, beside the branch that was not taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper

from redtest_onnx.errors import InternalError
from redtest_onnx.graph.index import reads


@dataclass(frozen=True)
class InlinedBranch:
    """A branch that was opened because of what is fed.

    Attributes:
        node: the If as it was.
        branch: name of the attribute that holds the branch taken.
        inside: tensors made inside it.
        before: nodes in front of it and stored tensors; its condition is computed from those.
        readers: (first output, input position) of the nodes that read its results, and which they read.
        values: inputs that decide, and the values they were taken for.
    """

    node: onnx.NodeProto
    branch: str
    inside: frozenset[str]
    before: onnx.GraphProto
    readers: Mapping[tuple[str, int], str]
    values: Mapping[str, Any]

    def __str__(self) -> str:
        values = ", ".join(f"{name} = {value}" for name, value in self.values.items())
        return f"the {self.branch} of {self.node.name or self.node.output[0]!r}, taken for {values}"


def reinsert_branch(edited: onnx.ModelProto, choice: InlinedBranch) -> onnx.ModelProto:
    """The edited model with the nodes of a branch back inside their If.

    Stored tensors stay in the main graph, which branches may read from.

    Raises:
        InternalError: a result of the branch is no longer known.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(edited)
    graph = proto.graph
    inner, outer = _divide(list(graph.node), choice)
    results = dict(_results(inner, outer, choice))
    inner = [node for node in inner if not set(node.output) & set(results)]
    for node in outer:
        for k in range(len(node.input)):
            # What was redirected into the branch reads the branch's result again.
            wanted = choice.readers.get((node.output[0], k))
            if wanted is not None and node.input[k] == results[wanted]:
                node.input[k] = wanted
    inner += _own_results(inner, results)
    position = next(i for i, node in enumerate(graph.node) if _belongs(node, choice))
    made = {name for node in graph.node[:position] for name in node.output}
    ahead = [node for node in outer if node.output[0] in made]
    condition = list(_condition(graph, choice, made))
    nodes = [*ahead, *condition, _joined(choice, inner, results), *outer[len(ahead) :]]
    del graph.node[:]
    graph.node.extend(nodes)
    stored = {t.name for t in graph.initializer}
    needed = {name for node in condition for name in reads(node)} - stored
    graph.initializer.extend(t for t in choice.before.initializer if t.name in needed)
    declared = {value.name for value in graph.value_info} & choice.inside
    for value in [value for value in graph.value_info if value.name in declared]:
        graph.value_info.remove(value)
    return proto


def _with_needed(
    nodes: list[onnx.NodeProto], inner: list[onnx.NodeProto], outer: list[onnx.NodeProto], before: set[str]
) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """The same division, but new nodes that the branch needs, and that read nothing of it, lie in it too."""
    wanted = {name for node in inner for name in reads(node)}
    moved: set[str] = set()
    for node in reversed(outer):
        if not wanted.isdisjoint(node.output) and before.isdisjoint(node.output):
            wanted.update(reads(node))
            moved.add(node.output[0])
    if not moved:
        return inner, outer
    inside = {node.output[0] for node in inner} | moved
    return (
        [node for node in nodes if node.output[0] in inside],
        [node for node in nodes if node.output[0] not in inside],
    )


def _belongs(node: onnx.NodeProto, choice: InlinedBranch) -> bool:
    """Whether a node lies in the branch, or hands on what it makes under the name of a result."""
    made = any(name in choice.inside for name in node.output)
    return made or (node.op_type == "Identity" and set(node.output) <= set(choice.node.output))


def _divide(
    nodes: list[onnx.NodeProto], choice: InlinedBranch
) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """Nodes of the branch, with new ones that read what only it has, and the others."""
    inside, results = set(choice.inside), set(choice.node.output)
    inner, outer = [], []
    for node in nodes:
        reader = any((node.output[0], k) in choice.readers for k in range(len(node.input)))
        new = not reader and not inside.isdisjoint(reads(node)) and not results & set(node.output)
        if _belongs(node, choice) or new:
            inside.update(set(node.output) - results)
            inner.append(node)
        else:
            outer.append(node)
    return _with_needed(nodes, inner, outer, {name for node in choice.before.node for name in node.output})


def _results(
    inner: list[onnx.NodeProto], outer: list[onnx.NodeProto], choice: InlinedBranch
) -> Iterator[tuple[str, str]]:
    """Per result of the If the tensor inside that it now is."""
    handed_on = {node.output[0]: node.input[0] for node in inner if node.op_type == "Identity"}
    redirected = {
        choice.readers[node.output[0], k]: name
        for node in outer
        for k, name in enumerate(node.input)
        if (node.output[0], k) in choice.readers
    }
    for name in filter(None, choice.node.output):
        if name in handed_on:
            yield name, handed_on[name]
        elif name in redirected:
            yield name, redirected[name]


def _own_results(inner: list[onnx.NodeProto], results: dict[str, str]) -> list[onnx.NodeProto]:
    """Hand on results that the branch does not make itself, or gives twice, under names of their own."""
    free = {name for node in inner for name in node.output}
    handed_on = []
    for name, made in results.items():
        if made in free:
            free.remove(made)
        else:
            results[name] = f"{name}/handed_on"
            handed_on.append(helper.make_node("Identity", [made], [results[name]], name=results[name]))
    return handed_on


def _condition(graph: onnx.GraphProto, choice: InlinedBranch, made: set[str]) -> Iterator[onnx.NodeProto]:
    """Nodes that compute the condition, as far as they are gone from the graph."""
    ready = made | {v.name for v in graph.input}
    wanted, found = {choice.node.input[0]}, []
    for node in reversed(choice.before.node):
        if wanted.isdisjoint(node.output) or not ready.isdisjoint(node.output):
            continue
        found.append(node)
        wanted.update(reads(node))
    yield from reversed(found)


def _joined(choice: InlinedBranch, inner: list[onnx.NodeProto], results: Mapping[str, str]) -> onnx.NodeProto:
    """The If with its new branch; results that no node reads any more are left out of both branches."""
    node = onnx.NodeProto()
    node.CopyFrom(choice.node)
    gone = [k for k, name in enumerate(node.output) if name not in results]
    if len(gone) == len(node.output):
        raise InternalError(f"nothing is left of {choice}")
    for attribute in node.attribute:
        if attribute.name == choice.branch:
            attribute.g.CopyFrom(helper.make_graph(inner, attribute.g.name, [], list(attribute.g.output)))
            for value, name in zip(attribute.g.output, node.output, strict=True):
                value.name = results.get(name, "")
        if attribute.HasField("g"):
            for k in reversed(gone):
                del attribute.g.output[k]
    for k in reversed(gone):
        del node.output[k]
    return node

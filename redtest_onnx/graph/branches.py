"""Networks inside If: a branch that is known to be taken is opened, so that its layers are seen and edited.

Conditions made of constants and declared shapes hold for every input, and the operator is dissolved. Others
hold for what is fed, such as a sampling rate: then the branch is only opened for the work on it, and
`InlinedModel.close` puts it back beside the other one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy.typing as npt
import onnx
from onnx import helper

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.cache_edits import close_up
from redtest_onnx.graph.caches import find_caches
from redtest_onnx.graph.edits import finished
from redtest_onnx.graph.folding import Folding
from redtest_onnx.graph.index import captured, index_of
from redtest_onnx.graph.model import Model, subgraphs
from redtest_onnx.graph.reduced import without_functions
from redtest_onnx.graph.reinsert import InlinedBranch, reinsert_branch
from redtest_onnx.graph.shapes import declared_shapes

_TWINS = 0.7  # of the matrices; the cross-attention's keys are made in one branch only
_BRANCHES = ("else_branch", "then_branch")  # by the truth of the condition


class Rewrite(Protocol):
    """A change of the whole graph that makes its layers visible, and that is taken back when it is closed."""

    def undo(self, edited: Model) -> Model:
        """The edited model without the change."""


@dataclass(frozen=True)
class InlinedModel:
    """A model whose known branches are opened.

    Attributes:
        original: the model as it was given.
        model: the same without local functions and known branches; `original` where there are none.
        choices: branches that are taken for the values fed, in the order they were opened.
        rewrites: what else was changed to make layers visible, in order.
    """

    original: Model
    model: Model
    choices: tuple[InlinedBranch, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()

    def close(self, edited: Model) -> Model:
        """The edited model with the opened branches put back beside those not taken.

        The caches of removed layers leave the signature, see `close_up`.

        Raises:
            InputError: a removed layer's cache is still needed elsewhere.
        """
        return self.original if edited is self.model else self.close_up(self.reassemble(edited))

    def reassemble(self, edited: Model) -> Model:
        """The edited model with its branches and all else put back, but the signature as it was."""
        for rewrite in reversed(self.rewrites):
            edited = rewrite.undo(edited)
        for choice in reversed(self.choices):
            edited = finished(edited, reinsert_branch(edited.proto, choice))
        return edited

    def close_up(self, edited: Model) -> Model:
        """The reassembled model without the inputs of caches whose layer is gone, see `cache_edits`."""
        return close_up(self.original, edited, find_caches(self.original))


def inline_branches(model: Model, fed: Mapping[str, npt.NDArray[Any]] | None = None) -> InlinedModel:
    """Inline local functions and the branches of If that are known to be taken.

    Args:
        model: the model; not changed.
        fed: values of inputs that all samples share.

    Returns:
        The opened model, which gives what the original gives for these inputs.
    """
    if not model.proto.functions and not any(node.op_type == "If" for node in model.graph.node):
        return InlinedModel(model, model)
    proto = _without_functions(model.proto, model.label)
    choices: list[InlinedBranch] = []
    changed = len(model.proto.functions) > 0
    while True:
        current = model.edited(proto)
        found = _decided(current, fed or {})
        if not found:
            return InlinedModel(model, current if changed else model, tuple(choices))
        changed = True
        for name, (branch, certain) in found.items():
            choice = _open(proto, name, branch, fed or {})
            choices = [_around(other, choice) for other in choices]
            if not certain:
                choices.append(choice)


def _around(outer: InlinedBranch, opened: InlinedBranch) -> InlinedBranch:
    """A choice with what was opened inside it since."""
    if outer.inside.isdisjoint(opened.node.output):
        return outer
    return replace(outer, inside=outer.inside | opened.inside)


def _without_functions(proto: onnx.ModelProto, label: str) -> onnx.ModelProto:
    if not proto.functions:
        copied = onnx.ModelProto()
        copied.CopyFrom(proto)
        return copied
    inlined = without_functions(proto, label)
    del inlined.opset_import[:]
    inlined.opset_import.extend(proto.opset_import)
    return inlined


def _decided(model: Model, fed: Mapping[str, npt.NDArray[Any]]) -> dict[str, tuple[str, bool]]:
    """Per If, by its first output: the branch that is taken, and whether that holds for all inputs."""
    nodes = [node for node in model.graph.node if ops.qualified(node) == "If"]
    if not nodes:
        return {}
    index = index_of(model)
    shapes = declared_shapes(model)
    always, now = Folding(model, index, shapes, {}), Folding(model, index, shapes, fed)
    found = {}
    for node in nodes:
        certain = always.truth(node.input[0])
        truth = now.truth(node.input[0]) if certain is None else certain
        if truth is not None and (certain is not None or _editable(model, node, _BRANCHES[not truth])):
            found[node.output[0]] = (_BRANCHES[truth], certain is not None)
    return found


def _editable(model: Model, node: onnx.NodeProto, other: str) -> bool:
    """Whether the branch not taken needs nothing but the model's inputs: then no edit can hurt it.

    Or whether it holds the same network: then it is edited alike.
    """
    inputs = {spec.name for spec in model.inputs}
    return are_twins(model, node) or all(name in inputs for name in captured(_branch(node, other)))


def are_twins(model: Model, node: onnx.NodeProto) -> bool:
    """Whether both branches of an If apply the same stored matrices, as those of a merged decoder do."""
    stored = model.initializers
    one, other = (
        {name for name in captured(_branch(node, branch)) if name in stored and len(stored[name].dims) > 1}
        for branch in _BRANCHES
    )
    return len(one & other) > 1 and len(one & other) >= _TWINS * max(len(one), len(other))


def _branch(node: onnx.NodeProto, name: str) -> onnx.GraphProto:
    return next(attribute.g for attribute in node.attribute if attribute.name == name)


def _open(
    proto: onnx.ModelProto, name: str, branch: str, fed: Mapping[str, npt.NDArray[Any]]
) -> InlinedBranch:
    """Put the nodes of a branch in the place of the If; its results are handed on by Identity."""
    graph = proto.graph
    position = next(i for i, node in enumerate(graph.node) if name in node.output)
    node = onnx.NodeProto()
    node.CopyFrom(graph.node[position])
    before = onnx.GraphProto()
    before.node.extend(graph.node[:position])
    before.initializer.extend(graph.initializer)
    inner = onnx.GraphProto()
    inner.CopyFrom(_branch(node, branch))
    _rename_apart(graph, inner, name, {t.name for t in _doubly_stored(node)})
    handed_on = [
        helper.make_node("Identity", [made.name], [output], name=f"{output}/handed_on")
        for made, output in zip(inner.output, node.output, strict=True)
        if output
    ]
    nodes = [*graph.node[:position], *inner.node, *handed_on, *graph.node[position + 1 :]]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(inner.initializer)
    graph.sparse_initializer.extend(inner.sparse_initializer)
    graph.value_info.extend(inner.value_info)
    inside = frozenset(name for made in inner.node for name in made.output if name)
    return InlinedBranch(node, branch, inside, before, _readers(nodes, node), _values(node, before, fed))


def _readers(nodes: list[onnx.NodeProto], node: onnx.NodeProto) -> dict[tuple[str, int], str]:
    """Who reads the results of the If: (first output of the reader, position) and which result."""
    return {
        (reader.output[0], k): read
        for reader in nodes
        for k, read in enumerate(reader.input)
        if read and read in node.output
    }


def _values(
    node: onnx.NodeProto, before: onnx.GraphProto, fed: Mapping[str, npt.NDArray[Any]]
) -> dict[str, Any]:
    """The inputs that the condition depends on, and their values."""
    found: dict[str, Any] = {}
    makers = {name: maker for maker in before.node for name in maker.output}
    stack = [node.input[0]]
    while stack:
        name = stack.pop()
        if name in fed:
            found[name] = fed[name].item() if fed[name].size == 1 else fed[name].tolist()
        elif name in makers:
            stack.extend(makers[name].input)
    return found


def _doubly_stored(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    """Stored tensors of all branches of a node that are called alike in more than one."""
    counts = Counter(t.name for child in subgraphs([node]) for t in child.initializer)
    yield from (t for child in subgraphs([node]) for t in child.initializer if counts[t.name] > 1)


def _rename_apart(graph: onnx.GraphProto, inner: onnx.GraphProto, mark: str, taken: set[str]) -> None:
    """Give tensors and nodes of a branch that are called like others of the graph names of their own."""
    tensors = {name for node in graph.node for name in node.output} | {t.name for t in graph.initializer}
    tensors |= taken
    own = [name for node in inner.node for name in node.output if name] + [t.name for t in inner.initializer]
    renamed = {name: f"{name}/{mark}" for name in own if name in tensors}
    called = {node.name for node in graph.node}
    for node in inner.node:
        if node.name in called:
            node.name = f"{node.name}/{mark}" if node.name else ""
    if renamed:
        _rename(inner, renamed)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        for k, name in enumerate(node.input):
            node.input[k] = names.get(name, name)
        for k, name in enumerate(node.output):
            node.output[k] = names.get(name, name)
        for child in subgraphs([node]):
            _rename(child, names)
    for tensor in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
        tensor.name = names.get(tensor.name, tensor.name)
    for value in (*graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)

"""Take caches out of a graph's outputs while layers are looked for, and put back those whose layer remains.

While the outputs of caches are hidden, a layer that makes one has a single exit, and can be removed as any
other. When the edited graph is closed again, the caches of removed layers leave the signature, and the
numbers of the others are closed up, since runtimes count them from 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from redtest_onnx.errors import InputError
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.caches import (
    Cache,
    ancestors,
    find_caches,
    is_size_node,
    number_of,
    renumbered,
    role_of,
)
from redtest_onnx.graph.index import GraphIndex, index_of, reads
from redtest_onnx.graph.model import Dim, Model, TensorSpec, subgraphs


@dataclass(frozen=True)
class HiddenCaches:
    """Caches whose outputs are hidden from a view of a model.

    Attributes:
        caches: the caches.
        before: the graph with them: its outputs, nodes and stored tensors.
        nodes: indices of its nodes that are hidden with them, since nothing else needs them.
    """

    caches: tuple[Cache, ...]
    before: Model
    nodes: frozenset[int]

    def undo(self, edited: Model) -> Model:
        """The edited model with the outputs of the caches whose layer is still there.

        Raises:
            InputError: only a part of what makes an output is left.
        """
        proto = onnx.ModelProto()
        proto.CopyFrom(edited.proto)
        graph, old = proto.graph, index_of(self.before)
        hidden = {cache.output for cache in self.caches if cache.output}
        made = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
        stored = {tensor.name for tensor in graph.initializer}
        inputs = {cache.input for cache in self.caches if cache.input}
        past = {cache.output: cache.input for cache in self.caches}
        read = {name for node in graph.node if not is_size_node(node) for name in reads(node)}
        needed: set[int] = set()
        remaining: set[str] = set()
        for name in sorted(hidden):
            tail = ancestors(old, [name]) & self.nodes
            sources = _sources(old, tail, name) - set(self.before.initializers)
            constants = ancestors(old, [n for n in sources - made if n not in old.input_dependent])
            tail |= {i for i in constants if made.isdisjoint(old.nodes[i].output)}
            sources &= old.input_dependent
            if sources <= inputs and past.get(name) is not None and past[name] not in read:
                continue  # it is handed on as it was, or given empty, and no layer is left that reads it
            if sources <= made:
                needed |= tail
                remaining.add(name)
            elif len(missing := sources - made) < len(sources) and not self._belongs(old, missing, sources):
                raise InputError(
                    f"the cache {name!r} belongs to a removed layer and to others",
                    where=self.before.label,
                    hint="keep these layers with @protect",
                )
        graph.node.extend(old.nodes[i] for i in sorted(needed))
        wanted = {name for i in needed for name in old.reads[i]}
        graph.initializer.extend(
            tensor for name, tensor in self.before.initializers.items() if name in wanted - stored
        )
        del graph.output[:]
        graph.output.extend(
            value for value in self.before.graph.output if value.name not in hidden or value.name in remaining
        )
        declared = {value.name for value in graph.value_info}
        graph.value_info.extend(
            value
            for value in self.before.graph.value_info
            if value.name not in declared and any(value.name in old.nodes[i].output for i in needed)
        )
        return edited.edited(proto)

    def _belongs(self, old: GraphIndex, missing: set[str], sources: set[str]) -> bool:
        """Whether what is left of an output's sources is only fed: masks, sizes and the cache's own past."""
        return not any(name in old.activations for name in sources - missing)


def hide_caches(model: Model) -> tuple[Model, HiddenCaches | None]:
    """A model without the outputs of its caches, and what is needed to put them back.

    Hidden are the outputs that one layer makes; what several share, such as a state that holds all layers',
    stays. So does everything where nothing but caches is given.
    """
    caches = find_caches(model)
    index = index_of(model)
    names = [cache.output for cache in caches if cache.output]
    plain = [name for name in index.outputs if name not in names]
    if not plain or not names:
        return model, None
    alive = ancestors(index, plain)
    hidden = tuple(
        cache
        for cache in caches
        if cache.output is None or cache.number is not None or _of_one_layer(index, cache.output, alive)
    )
    outputs = {cache.output for cache in hidden if cache.output}
    if not outputs:
        return model, None
    kept = ancestors(index, [name for name in index.outputs if name not in outputs])
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    for i in reversed(range(len(graph.output))):
        if graph.output[i].name in outputs:
            del graph.output[i]
    del graph.node[:]
    graph.node.extend(node for i, node in enumerate(index.nodes) if i in kept)
    nodes = frozenset(range(len(index.nodes))) - kept
    return model.edited(proto), HiddenCaches(hidden, model, nodes)


def close_up(original: Model, edited: Model, caches: Iterable[Cache]) -> Model:
    """Drop the inputs of caches whose layer is gone from the signature, and close up the numbers of the rest.

    Args:
        original: the model before any edit.
        edited: the model without the outputs of removed caches.
        caches: of the original.

    Raises:
        InputError: a removed layer's cache is still needed elsewhere.
    """
    caches = tuple(caches)
    outputs = {value.name for value in edited.graph.output}
    index = index_of(edited)
    gone = [cache for cache in caches if _is_gone(index, cache, outputs)]
    if not gone:
        return edited
    proto = onnx.ModelProto()
    proto.CopyFrom(edited.proto)
    dropped = {cache.input for cache in gone if cache.input}
    remaining = [cache for cache in caches if cache not in gone]
    _redirect_sizes(proto.graph, dropped, remaining, original)
    for i in reversed(range(len(proto.graph.input))):
        if proto.graph.input[i].name in dropped:
            del proto.graph.input[i]
    names = _new_numbers(remaining, caches)
    _rename(proto.graph, names)
    before = edited.renamed or {}
    kept = [value.name for value in (*edited.graph.input, *edited.graph.output) if value.name not in dropped]
    origins = {names.get(name, name): before.get(name, name) for name in kept}
    return replace(edited.edited(proto), renamed=origins)


def _is_gone(index: GraphIndex, cache: Cache, outputs: set[str]) -> bool:
    """Whether nothing but sizes is read of a cache, and nothing is given for it."""
    readers = index.readers.get(cache.input or "", ())
    if cache.output is not None:
        return cache.output not in outputs
    return all(is_size_node(index.nodes[reader]) for reader in readers)


def _redirect_sizes(
    graph: onnx.GraphProto, dropped: set[str], remaining: Sequence[Cache], original: Model
) -> None:
    """Let what reads the sizes of a cache that goes read those of another layer's of the same role."""
    inputs = {spec.name: spec for spec in original.inputs}
    for node in graph.node:
        for k, name in enumerate(node.input):
            if name not in dropped:
                continue
            same = [
                cache.input
                for cache in remaining
                if cache.input
                and role_of(cache.input) == role_of(name)
                and _sizes_read(node, inputs[cache.input]) == _sizes_read(node, inputs[name])
            ]
            if not is_size_node(node) or not same:
                why = (
                    "the length of the past is read from it"
                    if is_size_node(node)
                    else "another layer reads it"
                )
                raise InputError(
                    f"the cache {name!r} can't go with its layer: {why} ({node.name or node.op_type})",
                    where=original.label,
                    hint="keep one layer with a cache, or those that share it, with @protect",
                )
            node.input[k] = same[0]
        for child in subgraphs([node]):
            _redirect_sizes(child, dropped, remaining, original)


def _sizes_read(node: onnx.NodeProto, spec: TensorSpec) -> tuple[Dim, ...] | None:
    """The declared sizes that a node reads of a cache."""
    if spec.shape is None or node.op_type != "Shape":
        return spec.shape
    start, end = ops.attribute(node, "start", 0), ops.attribute(node, "end")
    assert isinstance(start, int)
    return spec.shape[start : end if isinstance(end, int) else None]


def _new_numbers(remaining: Sequence[Cache], caches: Sequence[Cache]) -> dict[str, str]:
    """New names of the caches behind the numbers that are no longer in use."""
    used = {cache.number for cache in remaining if cache.number is not None}
    free = {cache.number for cache in caches if cache.number is not None} - used
    names: dict[str, str] = {}
    for cache in remaining:
        if cache.number is None:
            continue
        number = cache.number - sum(other < cache.number for other in free)
        for name in (cache.input, cache.output):
            if name is not None and number != cache.number and number_of(name) is not None:
                names[name] = renumbered(name, number)
    return names


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors in a graph and its subgraphs, all at once."""
    for node in graph.node:
        for k, name in enumerate(node.input):
            node.input[k] = names.get(name, name)
        for k, name in enumerate(node.output):
            node.output[k] = names.get(name, name)
        for child in subgraphs([node]):
            _rename(child, names)
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for note in graph.quantization_annotation:
        note.tensor_name = names.get(note.tensor_name, note.tensor_name)


def _of_one_layer(index: GraphIndex, output: str, alive: set[int]) -> bool:
    """Whether what only the output needs starts from one node's results."""
    tail = ancestors(index, [output]) - alive
    sources = (name for name in _sources(index, tail, output) if name in index.activations)
    return len({index.producer.get(name) for name in sources}) <= 1


def _sources(index: GraphIndex, tail: set[int], output: str) -> set[str]:
    """What some nodes that lead to an output read from outside; the output itself if there are none."""
    inside = {name for i in tail for name in index.nodes[i].output}
    if output not in inside:
        return {output}
    return {name for i in tail for name in index.reads[i]} - inside


@dataclass(frozen=True)
class SignatureChange:
    """An input or output that a pruned model no longer has, or has under another number.

    Attributes:
        what: "input" or "output".
        name: its name in the original.
        becomes: its new name; None where it is removed.
    """

    what: str
    name: str
    becomes: str | None

    def __str__(self) -> str:
        return f"{self.what} {self.name} " + ("removed" if self.becomes is None else f"is now {self.becomes}")


def signature_changes(original: Model, edited: Model) -> tuple[SignatureChange, ...]:
    """What removing layers did to the signature: caches that left it, and new numbers of the others.

    Raises:
        InputError: something else changed.
    """
    if edited.renamed is None or edited.renamed == original.renamed:
        return ()
    changes = []
    names = {c.input for c in find_caches(original)} | {c.output for c in find_caches(original)}
    for what, before, after in (
        ("input", original.inputs, edited.inputs),
        ("output", original.outputs, edited.outputs),
    ):
        now = {edited.renamed.get(spec.name, spec.name): spec for spec in after}
        expected = [spec for spec in before if original.origin_of(spec.name) in now]
        same = [now[original.origin_of(spec.name)] for spec in expected]
        if same != list(after) or any(
            (a.dtype, a.shape) != (b.dtype, b.shape) for a, b in zip(expected, same, strict=True)
        ):
            raise InputError(f"the {what}s changed by more than the caches of removed layers")
        for spec in before:
            new = now.get(original.origin_of(spec.name))
            if new is not None and new.name == spec.name:
                continue
            if spec.name not in names:
                raise InputError(f"the {what} {spec.name!r} is no cache, but is gone or renamed")
            changes.append(SignatureChange(what, spec.name, None if new is None else new.name))
    return tuple(changes)


def unpaired(changes: Iterable[SignatureChange], caches: Iterable[Cache]) -> Iterator[str]:
    """Caches of which only one side was removed."""
    removed = {change.name for change in changes if change.becomes is None}
    for cache in caches:
        if cache.input and cache.output and (cache.input in removed) != (cache.output in removed):
            yield cache.label

"""Caches and recurrent states: which inputs of a graph hold what which outputs gave in the run before.

A cache belongs to the layer that reads the input and makes the output. Pairs are found by the ports of
attention and recurrent operators, by the numbered names that exporters give them (`past_key_values.3.key`,
`present.3.key`), and by data flow: an output that is its input with something appended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex, index_of
from redtest_onnx.graph.model import Model, TensorSpec

# Operator -> pairs of (input position of the past, output position of the present).
PORTS: dict[str, tuple[tuple[int, int], ...]] = {
    "Attention": ((4, 1), (5, 2)),
    "LSTM": ((5, 1), (6, 2)),
    "GRU": ((5, 1),),
    "RNN": ((5, 1),),
    ops.MS + "Attention": ((4, 1),),
    ops.MS + "GroupQueryAttention": ((3, 1), (4, 2)),
    ops.MS + "SparseAttention": ((3, 1), (4, 2)),
    ops.MS + "PagedAttention": ((3, 1), (4, 2)),
    ops.MS + "MultiHeadAttention": ((6, 1), (7, 2)),
    ops.MS + "DecoderMaskedMultiHeadAttention": ((5, 1), (6, 2)),
    ops.MS + "DecoderMaskedSelfAttention": ((4, 1),),
    ops.MS + "LinearAttention": ((3, 1),),
    ops.MS + "CausalConvWithState": ((3, 1),),
}
# They change how a state is laid out, or take a part of it, or append to it; never what it holds.
_PASSED_ON = frozenset(
    {"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Slice", "Split", "Concat", "Gather"}
    | {"ScatterND", "ScatterElements", "TensorScatter", "Expand", "Dropout", "Where"}
)
_PAST = re.compile(r"past|cache|state|memory|mem_|(^|[._])[hc]_?\d*$", re.IGNORECASE)
_PAST_NUMBERED = re.compile(r"past|cache", re.IGNORECASE)
_PRESENT_NUMBERED = re.compile(r"present", re.IGNORECASE)
_NUMBER = re.compile(r"(?:(?<=[._/])|(?<=[a-z]))(\d+)(?=$|[._/])", re.IGNORECASE)
_SAME = re.compile(r"past_key_values?|past|present|new|next|updated|input|output|\bin\b|\bout\b|_in\b|_out\b")


@dataclass(frozen=True)
class Cache:
    """What a layer keeps from one run to the next.

    Attributes:
        input: the graph input that holds what was kept; None if there is only the output, as in the file of
            a decoder that takes the first step.
        output: the graph output that gives what is to be kept; None for what is read and never changed, such
            as the cross-attention's keys.
        number: the layer's number in the names; None where they hold none.
    """

    input: str | None
    output: str | None
    number: int | None

    @property
    def label(self) -> str:
        """How messages call it."""
        return self.input or self.output or ""


def find_caches(model: Model) -> tuple[Cache, ...]:
    """The caches and states of a model, in the order of its inputs, then of its outputs."""
    inputs = {spec.name: spec for spec in model.inputs}
    outputs = {spec.name: spec for spec in model.outputs if spec.name not in inputs}
    if not inputs or not outputs:
        return ()
    found: dict[str, str] = {}
    taken: set[str] = set()
    index = index_of(model)
    for pairs in (
        _by_port(index, inputs, outputs),
        _by_name(inputs, outputs),
        _by_flow(index, inputs, outputs),
    ):
        for past, present in pairs:
            if past not in found and present not in taken and _alike(inputs[past], outputs[present]):
                found[past] = present
                taken.add(present)
    caches = [Cache(past, present, _common_number(past, present)) for past, present in found.items()]
    caches += [Cache(name, None, number_of(name)) for name in _single(inputs, found, _PAST_NUMBERED)]
    caches += [Cache(None, name, number_of(name)) for name in _single(outputs, taken, _PRESENT_NUMBERED)]
    order = {name: k for k, name in enumerate((*inputs, *outputs))}
    return tuple(sorted(caches, key=lambda cache: order[cache.label]))


def number_of(name: str) -> int | None:
    """The layer's number in the name of a cache; None if there is none."""
    match = _NUMBER.search(name)
    return int(match.group(1)) if match else None


def renumbered(name: str, number: int) -> str:
    """The name of a cache with another number in it."""
    return _NUMBER.sub(str(number), name, count=1)


def role_of(name: str) -> str:
    """What caches of all layers have in common in their names."""
    return _NUMBER.sub("#", name, count=1)


def _single(specs: dict[str, TensorSpec], paired: object, pattern: re.Pattern[str]) -> Iterator[str]:
    """Numbered caches whose other side this file doesn't have; several of a kind, so that none is a guess."""
    names = [name for name in specs if name not in paired]  # type: ignore[operator]
    names = [name for name in names if pattern.search(name) and number_of(name) is not None]
    yield from names if len(specs) > len(names) else ()


def _common_number(past: str, present: str) -> int | None:
    number = number_of(past)
    return number if number is not None and number == number_of(present) else None


def _by_port(
    index: GraphIndex, inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec]
) -> Iterator[tuple[str, str]]:
    for node in index.nodes:
        for past, present in PORTS.get(ops.qualified(node), ()):
            if past >= len(node.input) or present >= len(node.output) or not node.output[present]:
                continue
            source = _origin(index, node.input[past], inputs)
            target = _destination(index, node.output[present], outputs)
            if source is not None and target is not None:
                yield source, target


def _origin(index: GraphIndex, name: str, inputs: dict[str, TensorSpec]) -> str | None:
    """The graph input that a tensor is, but for its layout."""
    while name not in inputs:
        producer = index.producer.get(name)
        if producer is None or ops.qualified(index.nodes[producer]) not in _PASSED_ON:
            return None
        sources = [read for read in index.nodes[producer].input if read in index.input_dependent]
        if len(sources) != 1:
            return None
        name = sources[0]
    return name


def _destination(index: GraphIndex, name: str, outputs: dict[str, TensorSpec]) -> str | None:
    """The graph output that is made of a tensor by layout alone."""
    seen: set[str] = set()
    stack = [name]
    while stack:
        name = stack.pop(0)
        if name in outputs:
            return name
        for reader in index.readers.get(name, ()):
            if ops.qualified(index.nodes[reader]) in _PASSED_ON and not seen.issuperset(
                index.nodes[reader].output
            ):
                seen.update(index.nodes[reader].output)
                stack.extend(index.nodes[reader].output)
    return None


def _by_name(inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec]) -> Iterator[tuple[str, str]]:
    keys: dict[tuple[str, ...], str] = {}
    for name in outputs:
        keys.setdefault(_canonical(name), name)
    for name in inputs:
        if _PAST.search(name) and (other := keys.get(_canonical(name))) is not None:
            yield name, other


def _canonical(name: str) -> tuple[str, ...]:
    """The words of a name that past and present have in common."""
    words = re.split(r"[._/\s]+|(?<=[a-z])(?=\d)|(?<=\d)(?=[a-z])", _SAME.sub(".", name.lower()))
    return tuple(sorted(word for word in words if word))


def _by_flow(
    index: GraphIndex, inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec]
) -> Iterator[tuple[str, str]]:
    """Inputs that are appended to, or replaced, and given back."""
    for name, spec in inputs.items():
        if len(spec.shape or ()) < 2 or not _PAST.search(name):
            continue
        target = _destination(index, name, outputs)
        if target is not None:
            yield name, target
            continue
        # A state that a cell of plain operators computes anew: the outputs called so, in order.
        reached = index.reached(name)
        for other, out in outputs.items():
            if other in reached and _PAST.search(other) and _alike(spec, out):
                yield name, other


def _alike(past: TensorSpec, present: TensorSpec) -> bool:
    """Whether one may be the next value of the other: same type and rank, at most one fixed size differs."""
    if past.dtype != present.dtype:
        return False
    if past.shape is None or present.shape is None:
        return True
    pairs = list(zip(past.shape, present.shape, strict=False))
    fixed = sum(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)
    return len(past.shape) == len(present.shape) and fixed <= 1  # one axis may have grown by a fixed step


def ancestors(index: GraphIndex, names: Sequence[str]) -> set[int]:
    """Nodes that some tensors depend on, in any way."""
    found: set[int] = set()
    stack = list(names)
    while stack:
        node = index.producer.get(stack.pop())
        if node is not None and node not in found:
            found.add(node)
            stack.extend(index.reads[node])
    return found


def is_size_node(node: onnx.NodeProto) -> bool:
    """Whether a node reads a tensor's sizes only."""
    return ops.qualified(node) in ops.SIZE_ONLY

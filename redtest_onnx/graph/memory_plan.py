"""The memory of activations at its peak, as ONNX Runtime plans its buffers."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from math import prod

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import FLOAT, element_bits, subgraphs
from redtest_onnx.graph.shapes import Shape, Shapes

# Operators whose result may take the place of their first input.
_IN_PLACE = ops.POINTWISE | ops.RESHAPES | {"BatchNormalization"}


def peak_activation_bytes(index: GraphIndex, shapes: Shapes, held: Iterable[str] = ()) -> int | None:
    """Memory of activations at its peak, as ONNX Runtime plans it; None if a shape is unknown.

    Nodes run in graph order. A node that may works in place; else its output takes a buffer that is free
    and was planned for the same shape, and that buffer is held until then. What a branch or body needs for
    itself is held while its node runs; of several branches, what the largest needs.

    Args:
        index: the graph.
        shapes: of its tensors.
        held: tensors that are kept to the end as outputs are, such as caches that the file gives and a view
            of it does not.
    """
    constant = {
        name for name in index.producer if name not in index.input_dependent
    } | index.initializers.keys()
    plan = _BufferPlan(index, shapes, index.producer.keys() & set(held))
    for value in index.graph.input:
        if value.name not in constant:
            plan.feed(value.name)
    for i, node in enumerate(index.nodes):
        if ops.qualified(node) in ops.NO_TENSOR:
            continue  # a list holds on to tensors that are counted where they are made
        made = [name for name in node.output if name and name not in constant]
        if any(name not in shapes.sizes for name in made):
            return None
        inner = [
            peak_activation_bytes(GraphIndex(child, index.input_dependent), _inside(node, child, shapes))
            for child in subgraphs([node])
        ]
        if None in inner:
            return None
        plan.hold(i, max(filter(None, inner), default=0))
        plan.run(i, made)
    return plan.peak()


def _inside(node: onnx.NodeProto, child: onnx.GraphProto, shapes: Shapes) -> Shapes:
    """Shapes with those of a branch's results, which the node hands on, where inference leaves them open."""
    if node.op_type != "If":
        return shapes
    pairs = zip((value.name for value in child.output), node.output, strict=False)
    return shapes.updated(
        {own: shapes.sizes[to] for own, to in pairs if own not in shapes.sizes and to in shapes.sizes}
    )


class _BufferPlan:
    """Which tensors share a buffer, and how long each buffer is held."""

    def __init__(self, index: GraphIndex, shapes: Shapes, held: Iterable[str]) -> None:
        self._index, self._shapes = index, shapes
        self._outputs = {*index.outputs, *held}
        self._left = {name: len(readers) for name, readers in index.readers.items()}
        for name in self._outputs:
            self._left[name] = self._left.get(name, 0) + 1
        self._owner: dict[str, int] = {}  # buffer of each tensor
        self._sizes: list[int] = []
        self._from: list[int] = []
        self._until: list[int] = []
        self._users: list[int] = []  # live tensors in each buffer
        self._planned: list[object | None] = []  # the shape it was planned for
        self._free: list[tuple[object, int]] = []  # what a buffer was planned for; last freed first

    def feed(self, name: str) -> None:
        """A tensor that the caller holds throughout."""
        self._allocate(name, 0)
        self._until[-1] = len(self._index.nodes)
        self._users[-1] += 1

    def hold(self, i: int, size: int) -> None:
        """Bytes that one node needs for itself while it runs."""
        self._sizes.append(size)
        self._from.append(i)
        self._until.append(i)
        self._users.append(1)
        self._planned.append(None)

    def run(self, i: int, made: list[str]) -> None:
        """One node: buffers for what it makes, and those it read last are free again."""
        node = self._index.nodes[i]
        ends = [name for name in self._index.reads[i] if name in self._owner and self._left[name] == 1]
        for name in made:
            inherited = self._in_place(node, ends, name)
            if inherited is None:
                inherited = self._reused(name)
            if inherited is None:
                self._allocate(name, i)
            else:
                self._owner[name] = inherited
                self._users[inherited] += 1
            last = len(self._index.nodes) if name in self._outputs else i
            self._until[self._owner[name]] = max(self._until[self._owner[name]], last)
        for name in (*self._index.reads[i], *(name for name in made if not self._left.get(name))):
            if name in self._owner:
                self._left[name] = self._left.get(name, 0) - 1
                buffer = self._owner[name]
                self._until[buffer] = max(self._until[buffer], i)
                if self._left[name] <= 0:
                    self._release(name)

    def peak(self) -> int:
        """Largest sum of the buffers held at a time, in bytes."""
        change = [0] * (len(self._index.nodes) + 2)
        for size, start, end in zip(self._sizes, self._from, self._until, strict=True):
            change[start] += size
            change[end + 1] -= size
        return max(accumulate(change), default=0)

    def _allocate(self, name: str, i: int) -> None:
        self._owner[name] = len(self._sizes)
        self._sizes.append(
            stored_bytes(self._shapes.sizes.get(name, ()), self._shapes.dtypes.get(name, FLOAT))
        )
        self._from.append(i)
        self._until.append(i)
        self._users.append(1)
        self._planned.append(self._key(name))

    def _in_place(self, node: onnx.NodeProto, ends: list[str], name: str) -> int | None:
        if ops.qualified(node) not in _IN_PLACE:
            return None
        size = stored_bytes(self._shapes.sizes[name], self._shapes.dtypes.get(name, FLOAT))
        same = [self._owner[end] for end in ends if self._sizes[self._owner[end]] == size]
        return next((buffer for buffer in same if self._users[buffer] == 1), None)

    def _reused(self, name: str) -> int | None:
        key = self._key(name)
        if key is None or name in self._outputs:
            return None
        found = next((k for k, (planned, _) in enumerate(self._free) if planned == key), None)
        return None if found is None else self._free.pop(found)[1]

    def _release(self, name: str) -> None:
        buffer = self._owner[name]
        self._users[buffer] -= 1
        key = self._planned[buffer]
        if self._users[buffer] == 0 and key is not None:
            self._free.insert(0, (key, buffer))

    def _key(self, name: str) -> object | None:
        symbols = self._shapes.symbols.get(name)
        return None if symbols is None else (symbols, self._shapes.dtypes.get(name, FLOAT))


def stored_bytes(shape: Shape, dtype: int) -> int:
    """Bytes of a tensor; a last byte that is half full counts."""
    return -(-prod(shape) * element_bits(dtype) // 8)

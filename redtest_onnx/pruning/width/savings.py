"""What goes with channels of inner widths: parameters and multiply-accumulates, counted exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.cost import count_macs, learned_values
from redtest_onnx.graph.inner_width import InnerWidth
from redtest_onnx.pruning.targets import Quantity
from redtest_onnx.runtime.workbench import Workbench

Removed = Mapping[str, int]
"""Number of channels that are removed, by name of the inner width."""


@dataclass(frozen=True)
class _Term:
    """Something whose size is in proportion to the channels of one inner width or of two.

    A place that reads it and loses channels gets a smaller one of its own; the old one is removed once no
    place reads it.

    Attributes:
        quantity: what it counts as.
        size: how much, with all channels.
        places: the inner widths of each place that may lose channels.
        kept: whether other places read it, too.
    """

    quantity: Quantity
    size: int
    places: tuple[tuple[str, ...], ...]
    kept: bool = False


class WidthSavings:
    """Counts what goes where inner widths lose channels, also where one operator reads one and makes another.

    Args:
        bench: the model.
        widths: its inner widths.
    """

    def __init__(self, bench: Workbench, widths: Iterable[InnerWidth]) -> None:
        self._bench = bench
        self._channels: dict[str, int] = {}
        nodes: dict[int, list[str]] = {}
        operands: dict[tuple[int, int], list[str]] = {}
        for width in widths:
            self._channels[width.name] = width.channels
            for operator in (*width.producers, *width.consumers):
                nodes.setdefault(operator.node, []).append(width.name)
            for node in width.depthwise:
                nodes.setdefault(node, []).append(width.name)
            for operand in (*width.operands, *(operand for operand, _ in width.weights)):
                operands.setdefault((operand.node, operand.position), []).append(width.name)
        self._terms: dict[str, list[_Term]] = {name: [] for name in self._channels}
        for term in (*self._macs(nodes), *self._parameters(operands)):
            for name in {name for names in term.places for name in names}:
                self._terms[name].append(term)

    def _macs(self, nodes: Mapping[int, list[str]]) -> Iterator[_Term]:
        for node, names in nodes.items():
            macs = count_macs(self._bench.index, self._bench.shapes, [node])
            yield _Term("macs", macs or 0, (tuple(names),))

    def _parameters(self, operands: Mapping[tuple[int, int], list[str]]) -> Iterator[_Term]:
        index = self._bench.index
        places: dict[str, list[tuple[str, ...]]] = {}
        for (node, position), names in operands.items():
            tensor = index.source(index.nodes[node].input[position])
            places.setdefault(tensor, []).append(tuple(names))
        for tensor, found in places.items():
            kept = len(found) < self._reads(tensor)
            yield _Term("params", learned_values(index, tensor), tuple(found), kept)

    def _reads(self, tensor: str) -> int:
        """How often a tensor is read, its copies by Identity nodes included."""
        index, count, stack = self._bench.index, 0, [tensor]
        while stack:
            name = stack.pop()
            count += name in index.outputs
            for i in index.readers.get(name, ()):
                node = index.nodes[i]
                if ops.qualified(node) == "Identity":
                    stack.append(node.output[0])
                else:
                    count += max(list(node.input).count(name), 1)  # branches read what is no input of theirs
        return count

    def saved(self, quantity: Quantity, removed: Removed) -> int:
        """How much of a quantity is removed with some channels."""
        terms = {id(term): term for name in removed for term in self._terms[name]}
        return round(sum(self._lost(term, removed) for term in terms.values() if term.quantity == quantity))

    def gain(self, quantity: Quantity, removed: Removed, name: str, count: int) -> float:
        """How much more goes if one inner width loses so many channels instead of what it loses so far."""
        more = {**removed, name: count}
        return sum(
            self._lost(term, more) - self._lost(term, removed)
            for term in self._terms[name]
            if term.quantity == quantity
        )

    def _lost(self, term: _Term, removed: Removed) -> float:
        """How much less a term is; below 0 where the old one is kept beside smaller ones."""
        shares = [
            prod(1 - removed.get(name, 0) / self._channels[name] for name in names) for names in term.places
        ]
        smaller = [share for share in shares if share < 1]
        dropped = not term.kept and len(smaller) == len(shares)
        return term.size * (dropped - sum(smaller))

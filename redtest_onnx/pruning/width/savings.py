"""What goes with channels of inner widths: parameters and multiply-accumulates, counted exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from redtest_onnx.graph.cost import count_macs, learned_values
from redtest_onnx.graph.inner_width import InnerWidth
from redtest_onnx.pruning.targets import Quantity
from redtest_onnx.runtime.workbench import Workbench

Removed = Mapping[str, int]
"""Number of channels that go, by name of the inner width."""


@dataclass(frozen=True)
class _Term:
    """Something whose size is in proportion to the channels of one inner width or of two.

    Where others read it, too, it is kept, and what loses channels gets a smaller one of its own.
    """

    quantity: Quantity
    size: int
    widths: tuple[str, ...]
    shared: bool = False


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
            for name in term.widths:
                self._terms[name].append(term)

    def _macs(self, nodes: Mapping[int, list[str]]) -> Iterator[_Term]:
        for node, names in nodes.items():
            macs = count_macs(self._bench.index, self._bench.shapes, [node])
            yield _Term("macs", macs or 0, tuple(names))

    def _parameters(self, operands: Mapping[tuple[int, int], list[str]]) -> Iterator[_Term]:
        index = self._bench.index
        for (node, position), names in operands.items():
            tensor = index.source(index.nodes[node].input[position])
            shared = index.readers[tensor] != (node,)
            yield _Term("params", learned_values(index, tensor), tuple(names), shared)

    def gone(self, quantity: Quantity, removed: Removed) -> int:
        """How much of a quantity goes with some channels."""
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
        """How much of a term goes; below 0 for copies that are made."""
        share = prod(1 - removed.get(name, 0) / self._channels[name] for name in term.widths)
        if term.shared:
            return -term.size * share if share < 1 else 0.0
        return term.size * (1 - share)

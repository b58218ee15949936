"""The topology space of NATS-Bench (arXiv 2009.00437): one cell of three nodes and six edges."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from redtest_onnx.errors import InputError
from redtest_onnx.search.space import ImageTask

if TYPE_CHECKING:
    from torch import nn

OPERATORS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""(node, source) in the order in which a string spells them."""

_NAME = re.compile(r"topology(?:-(\d+)x(\d+))?")
_NODE = re.compile(r"\|(?:[a-z0-9_]+~\d\|)+")
_EDGE = re.compile(r"([a-z0-9_]+)~(\d)")


@dataclass(frozen=True)
class TopologySpace:
    """Cells `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|` in a network of three stages.

    Attributes:
        width: channels of the first stage; the benchmark has 16.
        cells: cells per stage; the benchmark has 5.
    """

    width: int = 16
    cells: int = 5

    @property
    def name(self) -> str:
        """`topology`, with the sizes where they are not the benchmark's."""
        benchmark = (self.width, self.cells) == (16, 5)
        return "topology" if benchmark else f"topology-{self.width}x{self.cells}"

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """One operator per edge."""
        return {f"{node}<-{source}": OPERATORS for node, source in EDGES}

    def spell(self, values: Mapping[str, str]) -> str:
        """The cell as the benchmark writes it."""
        nodes = [
            "|" + "".join(f"{values[f'{node}<-{source}']}~{source}|" for source in range(node))
            for node in (1, 2, 3)
        ]
        return "+".join(nodes)

    def parse(self, architecture: str) -> dict[str, str]:
        """The operator of each edge.

        Raises:
            InputError: the string is no cell of this space; the message says what is wrong with it.
        """
        nodes = architecture.strip().split("+")
        if len(nodes) != 3 or not all(_NODE.fullmatch(node) for node in nodes):
            raise _refusal(architecture, "it must read |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
        values: dict[str, str] = {}
        for target, node in enumerate(nodes, start=1):
            edges = _EDGE.findall(node)
            if [source for _, source in edges] != [str(k) for k in range(target)]:
                raise _refusal(architecture, f"node {target} must read from each node before it, in order")
            for operator, source in edges:
                if operator not in OPERATORS:
                    raise _refusal(
                        architecture, f"{operator!r} is no operator; known: {', '.join(OPERATORS)}"
                    )
                values[f"{target}<-{source}"] = operator
        return values

    def key(self, architecture: str) -> str:
        """The cell as an expression, by the rule behind the published count of 6,466 unique cells.

        A skip stands for its source, what comes from zeros is zero, and terms of a sum are sorted. The rule
        works on text: a zero in a sum stays a term, and a sum passed on by a skip is one term, so that some
        cells with different expressions compute the same.
        """
        values = self.parse(architecture)
        nodes = ["0"]
        for node in (1, 2, 3):
            terms = [_term(values[f"{node}<-{source}"], nodes[source]) for source in range(node)]
            nodes.append("+".join(sorted(terms)))
        return nodes[-1]

    def depth(self, architecture: str) -> int:
        """Convolutions on the longest way through the network; 0 in a cell that passes nothing on."""
        values = self.parse(architecture)
        reached = [0, *[-1] * 3]
        for node, source in EDGES:
            operator = values[f"{node}<-{source}"]
            if operator != "none" and reached[source] >= 0:
                reached[node] = max(reached[node], reached[source] + operator.startswith("nor_conv"))
        return 1 + 3 * self.cells * max(reached[3], 0) + 2 * 2

    def connected(self, architecture: str) -> bool:
        """Whether the cell's input reaches its output."""
        values = self.parse(architecture)
        reached = {0}
        for node, source in EDGES:
            if source in reached and values[f"{node}<-{source}"] != "none":
                reached.add(node)
        return 3 in reached

    def __iter__(self) -> Iterator[str]:
        """All 15,625 architectures."""
        names = list(self.choices)
        for operators in product(OPERATORS, repeat=len(names)):
            yield self.spell(dict(zip(names, operators, strict=True)))

    @classmethod
    def named(cls, name: str) -> TopologySpace | None:
        """The space that `name` means: `topology`, or `topology-WIDTHxCELLS`; None for another name."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        return cls(int(match[1]), int(match[2])) if match[1] else cls()

    def build(self, architecture: str, task: ImageTask) -> nn.Module:
        """The network of the benchmark with this cell."""
        from redtest_onnx.search.networks.topology import TopologyNetwork

        operators = [self.parse(architecture)[f"{node}<-{source}"] for node, source in EDGES]
        return TopologyNetwork(operators, self.width, self.cells, task)


def _term(operator: str, source: str) -> str:
    if operator == "none" or source == "#":
        return "#"
    return source if operator == "skip_connect" else f"({source})@{operator}"


def _refusal(architecture: str, why: str) -> InputError:
    return InputError(f"{architecture!r} is no cell of the topology space: {why}")

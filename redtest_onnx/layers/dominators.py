"""Dominator trees of the activation graph: the cut tensors in front of outputs, and what is between them.

The cut tensors of an output are its dominators: everything that reaches it passes through them. A step
between two of them may hold a network of its own, whose dominators are looked at in turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from redtest_onnx.graph.index import GraphIndex

_SOURCE = ""  # stands before all activations; no tensor has an empty name
# A block of more operators with weights in a row is no layer any more but a network with its own.
_LARGEST_BLOCK = 5
# One that holds most of the network is looked into even where each chain inside it is short.
_LARGEST_MAJORITY = 8


@dataclass(frozen=True)
class FlowStep:
    """The part between two consecutive cut tensors."""

    entry: str | None
    exit: str
    nodes: frozenset[int]


@dataclass(frozen=True)
class Tree:
    """The steps between the dominators of a tensor, and what is inside those too large for one layer.

    Attributes:
        chain: the steps.
        inner: the trees inside a step, by its exit.
        end: exit of the last step that holds weights.
    """

    chain: list[FlowStep]
    inner: dict[str, list[Tree]]
    end: str

    def chains(self) -> Iterator[list[FlowStep]]:
        """This chain and all inside it."""
        yield self.chain
        for trees in self.inner.values():
            for tree in trees:
                yield from tree.chains()

    def final_chains(self) -> Iterator[list[FlowStep]]:
        """The chains whose last weights are the last before this one's end."""
        yield self.chain
        for tree in self.inner.get(self.end, []):
            yield from tree.final_chains()

    def expanded_exits(self) -> Iterator[str]:
        """Exits of the steps whose inside is looked at instead."""
        for exit_, trees in self.inner.items():
            yield exit_
            for tree in trees:
                yield from tree.expanded_exits()


def find_flows(index: GraphIndex) -> list[list[Tree]]:
    """The dominator trees of all outputs, per flow of activations.

    All inputs are one flow, unless some join again and again, as an encoder's output does, or late, as towers
    do: then each has layers of its own.
    """
    whole = [_trees(index, index.activations)]
    if len(index.flows) < 2:
        return whole
    apart = [_trees(index, flow) for flow in index.flows]
    return apart if _longest(index, apart) > _longest(index, whole) else whole


def shadowed_steps(index: GraphIndex, flows: Sequence[Sequence[Tree]]) -> set[FlowStep]:
    """Steps of one flow that are no layers since another flow knows better.

    To the encoder's input all of a decoder is one block, since it reads the encoder's output everywhere; and
    from there on a part of an attention looks like a layer of its own.
    """
    chains = [[chain for tree in flow for chain in tree.chains()] for flow in flows]
    steps = [{step for chain in own for step in chain} for own in chains]
    layers = [{step for chain in own for step in _before_predictions(index, chain)} for own in chains]
    around: set[FlowStep] = set()
    for k, own in enumerate(steps):
        others = list(_others(layers, k))
        around |= {step for step in own if sum(other.nodes < step.nodes for other in others) > 1}
    parts: set[FlowStep] = set()
    for k, own in enumerate(steps):
        blocks = (step for step in _others(steps, k) if step not in around)
        inner = {node for step in blocks for node in step.nodes - {index.producer[step.exit]}}
        parts |= {step for step in own if index.producer[step.exit] in inner}
    return around | parts


def _before_predictions(index: GraphIndex, chain: list[FlowStep]) -> list[FlowStep]:
    """The steps with weights but a last single one, which may hand out a cached key as well as scores."""
    found = [step for step in chain if weighted(index, step)]
    return found[:-1] if found and len(found[-1].nodes) == 1 else found


def _others(steps: Sequence[set[FlowStep]], own: int) -> Iterator[FlowStep]:
    return (step for k, other in enumerate(steps) if k != own for step in other)


def weighted(index: GraphIndex, step: FlowStep) -> bool:
    """Whether a step applies weights."""
    return not step.nodes.isdisjoint(index.weighted)


def _longest(index: GraphIndex, flows: Sequence[Sequence[Tree]]) -> int:
    """Number of steps with weights of the longest chain."""
    counts = (sum(weighted(index, step) for step in tree.chain) for flow in flows for tree in flow)
    return max(counts, default=0)


def _trees(index: GraphIndex, flow: frozenset[str]) -> list[Tree]:
    """The dominator tree of each output of one flow."""
    dominators = _dominators(index, flow)
    return [
        _expand(index, dominators, _steps(index, None, _cut_tensors(dominators, None, output)))
        for output in index.outputs
        if output in dominators
    ]


def _expand(index: GraphIndex, dominators: dict[str, str], chain: list[FlowStep]) -> Tree:
    """Look into the steps that hold a network of their own, as a U-Net does between its skips."""
    inner: dict[str, list[Tree]] = {}
    end = next((step.exit for step in reversed(chain) if weighted(index, step)), "")
    for step in chain:
        if len(step.nodes) < _LARGEST_BLOCK:
            continue
        sources = index.activation_inputs(index.producer[step.exit])
        sources = tuple(source for source in sources if source in dominators and source != step.entry)
        cuts = [_cut_tensors(dominators, step.entry, source) for source in sources]
        chains = [_steps(index, step.entry, cut) for cut in cuts if cut]
        most = max((sum(weighted(index, part) for part in part_chain) for part_chain in chains), default=0)
        last = step.exit == end and _feeds_others(index, step)
        if most > _LARGEST_BLOCK or (most > 1 and (last or _holds_most(index, step))):
            inner[step.exit] = [_expand(index, dominators, part_chain) for part_chain in chains]
    return Tree(chain, inner, end)


def _feeds_others(index: GraphIndex, step: FlowStep) -> bool:
    """Whether others read what is made inside a step, so that it can't be removed as a whole."""
    return any(
        name in index.outputs or not step.nodes.issuperset(index.readers.get(name, ()))
        for i in step.nodes
        for name in index.nodes[i].output
        if name and name != step.exit and name in index.activations
    )


def _holds_most(index: GraphIndex, step: FlowStep) -> bool:
    """Whether a step holds more than half of the operators with weights, as a detector's neck does."""
    inside = len(step.nodes & index.weighted)
    if len(index.flows) > 1:
        return False  # to an encoder's input, all of a decoder is one step
    return inside > _LARGEST_MAJORITY and 2 * inside > len(index.weighted)


def _cut_tensors(dominators: dict[str, str], entry: str | None, target: str) -> list[str]:
    """Cut tensors between `entry` and a tensor inside a region."""
    found: list[str] = []
    while target not in (entry, _SOURCE):
        found.append(target)
        target = dominators[target]
    return found[::-1]


def _dominators(index: GraphIndex, flow: frozenset[str]) -> dict[str, str]:
    """Immediate dominators of the activations of a flow in their graph."""
    steps = []
    for i, node in enumerate(index.nodes):
        sources = [name for name in index.activation_inputs(i) if name in flow]
        steps.append((sources or [_SOURCE], [name for name in node.output if name in flow]))
    return immediate_dominators(steps)


def immediate_dominators(
    steps: Iterable[tuple[Sequence[str], Sequence[str]]], source: str = _SOURCE
) -> dict[str, str]:
    """The last tensor before each one that every path from the source to it passes through.

    "A Simple, Fast Dominance Algorithm" (Cooper, Harvey and Kennedy 2001) for a graph without cycles, whose
    steps come in an order in which they can run: then one pass does.

    Args:
        steps: what is read and what is made of it.
        source: where all paths begin.

    Returns:
        The dominator of each tensor that the source reaches; the source's is the source itself.
    """
    found, depth = {source: source}, {source: 0}
    for sources, targets in steps:
        nearest: str | None = None
        for other in sources:
            if other not in depth:
                continue
            while nearest is not None and nearest != other:
                if depth[nearest] < depth[other]:
                    other = found[other]
                else:
                    nearest = found[nearest]
            nearest = other
        if nearest is not None:
            for target in targets:
                found[target], depth[target] = nearest, depth[nearest] + 1
    return found


def _steps(index: GraphIndex, entry: str | None, chain: list[str]) -> list[FlowStep]:
    entries: list[str | None] = [entry, *chain[:-1]]
    return [FlowStep(a, b, index.between(a, b)) for a, b in zip(entries, chain, strict=True)]

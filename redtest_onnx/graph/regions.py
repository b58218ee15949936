"""Layers of an arbitrary graph: single-exit regions of the flow of activations, and why one can't go.

An activation depends on a model input through an operator with weights, so masks, positions and shape
arithmetic are none. The cut tensors of an output are its dominators in the graph of activations: everything
that reaches the output passes through them. Between consecutive cut tensors lies one indivisible region, a
single operator or a block with branches; those that hold weights are the layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import networkx as nx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex

_SOURCE = ""  # stands before all activations; no tensor has an empty name
# A block of more operators with weights in a row is no layer any more but a network with its own.
_LARGEST_BLOCK = 5
# What brings the [steps, directions, batch, width] of a recurrent operator back to a sequence.
_RESHAPING = frozenset({"Squeeze", "Transpose", "Reshape"})


@dataclass(frozen=True)
class Region:
    """A part of the graph between two activations.

    Attributes:
        entry: the activation it starts from; None where it starts at the model's inputs.
        tensor: the activation that represents it in measurements.
        exit: the activation its readers would have to do without: `tensor` or, behind a single operator,
            what its bias, normalisation and activation make of it.
        core: nodes on the paths from `entry` to `tensor`.
        tail: nodes on the paths from `tensor` to `exit`.
    """

    entry: str | None
    tensor: str
    exit: str
    core: frozenset[int]
    tail: frozenset[int]

    @property
    def nodes(self) -> frozenset[int]:
        """All nodes on the paths from `entry` to `exit`."""
        return self.core | self.tail


@dataclass(frozen=True)
class _Step:
    """The part between two consecutive cut tensors."""

    entry: str | None
    exit: str
    nodes: frozenset[int]


def find_regions(
    index: GraphIndex, ranks: dict[str, int] | None = None, ends: frozenset[str] = frozenset()
) -> tuple[Region, ...]:
    """The default series of layers in the order of the graph.

    One region for each single operator with weights and for each indivisible block that holds weights, along
    the cut tensors of every output. The operators that turn the last features into predictions are no layers.

    Args:
        index: the graph.
        ranks: ranks of tensors where known; they tell a classifier's operators behind the last flattening.
        ends: tensors beyond which no layer takes its activation from, such as the results of a branch.
    """
    trees = _trees(index, index.activations)
    apart = [tree for flow in index.flows for tree in _trees(index, flow)] if len(index.flows) > 1 else []
    if _longest(index, apart) > _longest(index, trees):
        trees = apart  # inputs that join again and again, or late: each has layers of its own
    heads = _heads(index, [chain for tree in trees for chain in tree.last()], ranks or {})
    chains = [chain for tree in trees for chain in tree.chains()]
    opened = {exit_ for tree in trees for exit_ in tree.opened()}
    passed_over = _around_others(index, chains)
    # The way with most layers names them; others add what branches off it.
    chains.sort(key=lambda chain: -sum(_weighted(index, step) for step in chain))
    found: dict[str, Region] = {}
    inside: set[int] = set()
    for chain in chains:
        for k, step in enumerate(chain):
            known = step.exit in found or index.producer[step.exit] in inside
            # An operator with several outputs, such as If or LSTM, is one layer.
            known = known or any(name in found for name in index.nodes[index.producer[step.exit]].output)
            known = known or step.exit in opened or step in passed_over
            if known or step.exit in heads or not _weighted(index, step):
                continue
            region = _region(index, chain, k, ranks or {}, ends)
            found[step.exit] = region
            inside |= region.core if len(region.core) > 1 else frozenset()
    return tuple(sorted(found.values(), key=lambda region: index.producer[region.tensor]))


def _longest(index: GraphIndex, trees: list[_Tree]) -> int:
    """Number of steps with weights on the longest way."""
    return max((sum(_weighted(index, step) for step in tree.chain) for tree in trees), default=0)


def _trees(index: GraphIndex, flow: frozenset[str]) -> list[_Tree]:
    """The way to each output along the cut tensors of one flow."""
    dominators = _dominators(index, flow)
    return [
        _expand(index, dominators, _steps(index, None, _way(dominators, None, output)))
        for output in index.outputs
        if output in dominators
    ]


def _around_others(index: GraphIndex, chains: list[list[_Step]]) -> set[_Step]:
    """Steps that hold several layers of another way.

    To the encoder's input all of a decoder is one block, since it reads the encoder's output everywhere.
    """
    layers = {index.producer[s.exit]: s for chain in chains for s in chain if _weighted(index, s)}
    found = set()
    for chain in chains:
        own = {index.producer[step.exit] for step in chain}
        for step in chain:
            others = (step.nodes & layers.keys()) - own
            if len([k for k in others if layers[k].nodes < step.nodes]) > 1:
                found.add(step)
    return found


@dataclass(frozen=True)
class _Tree:
    """The steps of a way, and what is inside those that are too large for one layer.

    Attributes:
        chain: the steps.
        inner: the ways inside a step, by its exit.
        end: exit of the last step that holds weights.
    """

    chain: list[_Step]
    inner: dict[str, list[_Tree]]
    end: str

    def chains(self) -> Iterator[list[_Step]]:
        """This chain and all inside it."""
        yield self.chain
        for trees in self.inner.values():
            for tree in trees:
                yield from tree.chains()

    def last(self) -> Iterator[list[_Step]]:
        """The chains whose last weights are the last before this one's end."""
        yield self.chain
        for tree in self.inner.get(self.end, []):
            yield from tree.last()

    def opened(self) -> Iterator[str]:
        """Exits of the steps whose inside is looked at instead."""
        for exit_, trees in self.inner.items():
            yield exit_
            for tree in trees:
                yield from tree.opened()


def _expand(index: GraphIndex, dominators: dict[str, str], chain: list[_Step]) -> _Tree:
    """Look into the steps that hold a network of their own, as a U-Net does between its skips."""
    inner: dict[str, list[_Tree]] = {}
    for step in chain:
        if len(step.nodes) < _LARGEST_BLOCK:
            continue
        sources = index.activation_inputs(index.producer[step.exit])
        sources = tuple(source for source in sources if source in dominators and source != step.entry)
        ways = [_way(dominators, step.entry, source) for source in sources]
        chains = [_steps(index, step.entry, way) for way in ways if way]
        if any(sum(_weighted(index, part) for part in part_chain) > _LARGEST_BLOCK for part_chain in chains):
            inner[step.exit] = [_expand(index, dominators, part_chain) for part_chain in chains]
    end = next((step.exit for step in reversed(chain) if _weighted(index, step)), "")
    return _Tree(chain, inner, end)


def _way(dominators: dict[str, str], entry: str | None, target: str) -> list[str]:
    """Cut tensors between `entry` and a tensor inside a region."""
    way: list[str] = []
    while target not in (entry, _SOURCE):
        way.append(target)
        target = dominators[target]
    return way[::-1]


def leaving(index: GraphIndex, region: Region) -> str | None:
    """Why a region can't go: a tensor inside it that others need, in words; None if there is none."""
    dead = index.dead_without([region.exit], kept=[region.entry] if region.entry else [])
    for node in sorted(region.nodes - dead):
        for name in index.nodes[node].output:
            if not name or name == region.exit:
                continue
            if name in index.outputs:
                return f"its inner tensor {name!r} is also an output of the model"
            for reader in index.readers.get(name, ()):
                if reader not in region.nodes:
                    return f"its inner tensor {name!r} is also read by {describe(index, reader)}"
    return None


def describe(index: GraphIndex, node: int) -> str:
    """How messages call a node: its name, or its operator and what it makes."""
    proto = index.nodes[node]
    return proto.name or f"{proto.op_type} -> {proto.output[0] if proto.output else '?'}"


def _dominators(index: GraphIndex, flow: frozenset[str]) -> dict[str, str]:
    """Immediate dominators of the activations of a flow in their graph."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node(_SOURCE)
    for i, node in enumerate(index.nodes):
        sources = [name for name in index.activation_inputs(i) if name in flow]
        for target in node.output:
            if target in flow:
                graph.add_edges_from((source, target) for source in sources or (_SOURCE,))
    immediate: dict[str, str] = nx.immediate_dominators(graph, _SOURCE)
    return immediate


def _steps(index: GraphIndex, entry: str | None, chain: list[str]) -> list[_Step]:
    entries: list[str | None] = [entry, *chain[:-1]]
    return [_Step(a, b, index.between(a, b)) for a, b in zip(entries, chain, strict=True)]


def _weighted(index: GraphIndex, step: _Step) -> bool:
    return not step.nodes.isdisjoint(index.weighted)


def _heads(index: GraphIndex, chains: list[list[_Step]], ranks: dict[str, int]) -> frozenset[str]:
    """Exits of the operators that make predictions of the last features."""
    heads: set[str] = set()
    body: set[str] = set()
    for chain in chains:
        weighted = [step for step in chain if _weighted(index, step)]
        spatial = any(ranks.get(step.exit, 0) > 2 for step in weighted)
        count = len(weighted)
        while count and _predicts(index, weighted[count - 1]):
            # The last operator predicts; so do fully connected ones before it, behind a flattening.
            if count < len(weighted) and not (spatial and ranks.get(weighted[count - 1].exit) == 2):
                break
            count -= 1
        body.update(step.exit for step in weighted[:count])
        heads.update(step.exit for step in weighted[count:])
    return frozenset(heads - body)


def _predicts(index: GraphIndex, step: _Step) -> bool:
    """Whether a step can be a mere prediction: one operator, and neither control flow nor recurrent."""
    return len(step.nodes) == 1 and _kinds(index, step).isdisjoint(ops.CONTROL_FLOW | ops.RECURRENT)


def _region(
    index: GraphIndex, chain: list[_Step], k: int, ranks: dict[str, int], ends: frozenset[str]
) -> Region:
    """The layer that starts with step `k`, with the steps behind it that belong to it."""
    step = chain[k]
    single = len(step.nodes) == 1
    last = k
    if _kinds(index, step) <= ops.RECURRENT:
        while last + 1 < len(chain) and ranks.get(chain[last].exit) == 4:
            if not _kinds(index, chain[last + 1]) <= _RESHAPING:
                break
            last += 1
    while last + 1 < len(chain) and chain[last].exit not in ends and _belongs(index, chain, last + 1, k):
        last += 1
    exit_ = chain[last].exit
    tail: frozenset[int] = frozenset().union(*(s.nodes for s in chain[k + 1 : last + 1]))
    if single:
        return Region(step.entry, step.exit, exit_, step.nodes, tail)
    return Region(step.entry, exit_, exit_, step.nodes | tail, frozenset())


def _belongs(index: GraphIndex, chain: list[_Step], candidate: int, start: int) -> bool:
    """Whether a step behind the layer that starts at `start` is its bias, normalisation or activation."""
    if _weighted(index, chain[candidate]):
        return False
    kinds = _kinds(index, chain[candidate])
    if len(chain[start].nodes) == 1:
        return kinds <= ops.POINTWISE or _normalises(kinds)
    if kinds <= ops.ACTIVATION or (len(kinds) > 1 and kinds <= ops.POINTWISE):
        return True
    return candidate <= start + _normalisation_behind(index, chain, start)


def _normalisation_behind(index: GraphIndex, chain: list[_Step], start: int) -> int:
    """Number of steps behind a block that normalise its sum as the values it starts from were normalised.

    That is what post-norm transformers do; one operator, or up to five steps where it is spelt out.
    """
    for count in range(5, 0, -1):
        before, behind = chain[max(start - count, 0) : start], chain[start + 1 : start + 1 + count]
        kinds = [_kinds(index, step) for step in behind]
        same = len(before) == len(behind) == count and kinds == [_kinds(index, step) for step in before]
        if same and not any(_weighted(index, step) for step in behind) and _normalises(set().union(*kinds)):
            return count
    return 0


def _kinds(index: GraphIndex, step: _Step) -> set[str]:
    return {ops.qualified(index.nodes[i]) for i in step.nodes}


def _normalises(kinds: set[str]) -> bool:
    """One normalisation operator, or one that the exporter spelt out as means, differences and quotients."""
    if kinds <= ops.NORMALISATION:
        return True
    spelt_out = kinds <= ops.POINTWISE | ops.REDUCTION and not kinds.isdisjoint({"Sub", "Div"})
    return spelt_out and not kinds.isdisjoint(ops.REDUCTION)

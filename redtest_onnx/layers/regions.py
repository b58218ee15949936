"""Layers of an arbitrary graph: single-exit regions of the flow of activations, and why one can't go.

An activation depends on a model input through an operator with weights, so masks, positions and shape
arithmetic are none. The cut tensors of an output are its dominators in the graph of activations: everything
that reaches the output passes through them. Between consecutive cut tensors lies one indivisible region, a
single operator or a block with branches; those that hold weights are the layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.layers.dominators import FlowStep, find_flows, shadowed_steps, weighted
from redtest_onnx.layers.nested import majority_steps, nested_chains

RESHAPING = frozenset({"Squeeze", "Transpose", "Reshape"})
"""What brings the [steps, directions, batch, width] of a recurrent operator back to a sequence."""


_SIZE_KEEPING = ops.POINTWISE | ops.NORMALISATION | {"Softmax"}
# Linear operators may change their last axis only; where the sizes agree in a run, it is a fixed one.
_POSITIONS_KEPT = frozenset({"MatMul", "MatMulInteger", "Conv"})


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
    flows = find_flows(index)
    trees = [tree for flow in flows for tree in flow]
    heads = _heads(index, [chain for tree in trees for chain in tree.final_chains()], ranks or {})
    chains = [chain for tree in trees for chain in tree.chains()]
    expanded = {exit_ for tree in trees for exit_ in tree.expanded_exits()}
    no_layers = shadowed_steps(index, flows)
    whole = {step for chain in chains for step in chain if step.exit not in expanded | heads} - no_layers
    for step in majority_steps(index, sorted(whole, key=lambda step: index.producer[step.exit])):
        if nested := nested_chains(index, step):
            expanded.add(step.exit)
            chains += nested
    # The chain with most layers names them; others add what branches off it.
    chains.sort(key=lambda chain: -sum(weighted(index, step) for step in chain))
    found: dict[str, Region] = {}
    inside: set[int] = set()
    for chain in chains:
        for k, step in enumerate(chain):
            known = step.exit in found or index.producer[step.exit] in inside
            # An operator with several outputs, such as If or LSTM, is one layer.
            known = known or any(name in found for name in index.nodes[index.producer[step.exit]].output)
            known = known or step.exit in expanded or step in no_layers
            if known or step.exit in heads or not weighted(index, step):
                continue
            region = _region(index, chain, k, ranks or {}, ends)
            same = next((key for key, one in found.items() if one.tensor == region.tensor), None)
            if same is not None and found[same].entry is region.entry is None:
                # Rows of several tables whose sum is one embedding.
                found[same] = _joined(found[same], region)
                continue
            found[step.exit] = region
            inside |= region.core if len(region.core) > 1 else frozenset()
    return tuple(sorted(found.values(), key=lambda region: index.producer[region.tensor]))


def escaping_tensor(
    index: GraphIndex, region: Region, sizes: Mapping[str, tuple[int, ...]] | None = None
) -> str | None:
    """Why a region can't go: a tensor inside it that others need, in words; None if there is none.

    Args:
        index: the graph.
        region: the region.
        sizes: sizes of tensors; one whose sizes only others need does no harm where the entry has the same.
    """
    dead = index.dead_nodes_if_unread([region.exit], kept=[region.entry] if region.entry else [])
    for node in sorted(region.nodes - dead):
        for name in index.nodes[node].output:
            if not name or name == region.exit:
                continue
            if name in index.outputs:
                return f"its inner tensor {name!r} is also an output of the model"
            only_sizes = sizes is not None and measurable_at_entry(index, region, name, sizes)
            for reader in index.readers.get(name, ()):
                if only_sizes and ops.qualified(index.nodes[reader]) == "Shape":
                    continue
                if reader in region.nodes:
                    continue
                if ops.qualified(index.nodes[reader]) in ops.SIZE_ONLY:
                    return f"other layers read their sizes off its inner tensor {name!r}"
                return f"its inner tensor {name!r} is also read by {describe(index, reader)}"
    return None


def measurable_at_entry(
    index: GraphIndex, region: Region, name: str, sizes: Mapping[str, tuple[int, ...]]
) -> bool:
    """Whether an inner tensor has the sizes of the region's entry, for one sample and by what makes it."""
    if region.entry is None or name not in sizes or sizes[name] != sizes.get(region.entry):
        return False
    return name == region.entry or name in _same_sizes(index, region.entry, region.nodes)


def _same_sizes(index: GraphIndex, entry: str, nodes: frozenset[int]) -> set[str]:
    """Tensors inside a region that have the sizes of its entry whatever these are."""
    found = {entry}
    for i in sorted(nodes):
        node = index.nodes[i]
        sources = index.activation_inputs(i)
        keeps = ops.qualified(node) in _SIZE_KEEPING and sources and all(name in found for name in sources)
        # A residual sum of the entry with what has come back to its sizes.
        back = ops.qualified(node) in ("Add", "Sum") and any(name in found for name in sources)
        if keeps or back or (ops.qualified(node) in _POSITIONS_KEPT and sources and sources[0] in found):
            found.add(node.output[0])
    return found


def describe(index: GraphIndex, node: int) -> str:
    """How messages call a node: its name, or its operator and what it makes."""
    proto = index.nodes[node]
    return proto.name or f"{proto.op_type} -> {proto.output[0] if proto.output else '?'}"


def _heads(index: GraphIndex, chains: list[list[FlowStep]], ranks: dict[str, int]) -> frozenset[str]:
    """Exits of the operators that make predictions of the last features."""
    heads: set[str] = set()
    body: set[str] = set()
    for chain in chains:
        steps = [step for step in chain if weighted(index, step)]
        spatial = any(ranks.get(step.exit, 0) > 2 for step in steps)
        count = len(steps)
        while count and _predicts(index, steps[count - 1]):
            # The last operator predicts; so do fully connected ones before it, behind a flattening.
            if count < len(steps) and not (spatial and ranks.get(steps[count - 1].exit) == 2):
                break
            count -= 1
        body.update(step.exit for step in steps[:count])
        heads.update(step.exit for step in steps[count:])
    return frozenset(heads - body)


def _predicts(index: GraphIndex, step: FlowStep) -> bool:
    """Whether a step can be a mere prediction: one operator, and neither control flow nor recurrent.

    One linear operator that quantises its input and scales its integers back is one operator, too.
    """
    kinds = _kinds(index, step)
    if not kinds.isdisjoint(ops.CONTROL_FLOW | ops.RECURRENT | ops.ATTENTION):
        return False
    if len(step.nodes) == 1:
        return True
    with_weights = [i for i in step.nodes if i in index.weighted]
    around = {ops.qualified(index.nodes[i]) for i in step.nodes if i not in index.weighted}
    return len(with_weights) == 1 and around <= ops.QUANTISATION


def _region(
    index: GraphIndex, chain: list[FlowStep], k: int, ranks: dict[str, int], ends: frozenset[str]
) -> Region:
    """The layer that starts with step `k`, with the steps behind it that belong to it."""
    step = chain[k]
    # What the first block reads of looked-up rows are their sums with positions, normalised.
    single = len(step.nodes) == 1 and not _looks_up(index, step)
    last = k
    if _kinds(index, step) <= ops.RECURRENT:
        while last + 1 < len(chain) and ranks.get(chain[last].exit) == 4:
            if not _kinds(index, chain[last + 1]) <= RESHAPING:
                break
            last += 1
    while last + 1 < len(chain) and chain[last].exit not in ends and _belongs(index, chain, last + 1, k):
        last += 1
    exit_ = chain[last].exit
    tail: frozenset[int] = frozenset().union(*(s.nodes for s in chain[k + 1 : last + 1]))
    if single:
        return Region(step.entry, step.exit, exit_, step.nodes, tail)
    return Region(step.entry, exit_, exit_, step.nodes | tail, frozenset())


def _belongs(index: GraphIndex, chain: list[FlowStep], candidate: int, start: int) -> bool:
    """Whether a step behind the layer that starts at `start` is its bias, normalisation or activation."""
    if weighted(index, chain[candidate]):
        return False
    kinds = _kinds(index, chain[candidate])
    if kinds == {"DequantizeLinear"} and _kinds(index, chain[candidate - 1]) != {"QuantizeLinear"}:
        return False  # the end of integer arithmetic, not a rounding on the way
    if len(chain[start].nodes) == 1 or _looks_up(index, chain[start]):
        goes_on = kinds <= ops.POINTWISE or _normalises(kinds)
        # A bias that is looked up joins activations, and is no embedding of them.
        return goes_on and (not _looks_up(index, chain[start]) or _looked_up(index, chain[candidate]))
    if kinds <= ops.ACTIVATION or (len(kinds) > 1 and kinds <= ops.POINTWISE):
        return True
    return candidate <= start + _normalisation_behind(index, chain, start)


def is_embedding(index: GraphIndex, region: Region) -> bool:
    """Whether a region is the embedding of a model's inputs: tables are its only weights."""
    return region.entry is None and _only_tables(index, region.core)


def _looks_up(index: GraphIndex, step: FlowStep) -> bool:
    return step.entry is None and _only_tables(index, step.nodes)


def _looked_up(index: GraphIndex, step: FlowStep) -> bool:
    """Whether a step reads nothing but rows of tables, as they are or computed with."""
    stack, seen = list(step.nodes), set(step.nodes)
    while stack:
        for name in index.activation_inputs(stack.pop()):
            node = index.producer.get(name)
            if node is None or node in seen:
                continue
            if node in index.weighted and not _only_tables(index, frozenset({node})):
                return False
            seen.add(node)
            stack.append(node)
    return True


def _joined(first: Region, second: Region) -> Region:
    """One region of two that make the same tensor of the model's inputs."""
    return replace(first, core=first.core | second.core, tail=first.tail | second.tail)


def _only_tables(index: GraphIndex, nodes: frozenset[int]) -> bool:
    found = [ops.qualified(index.nodes[i]) for i in nodes if i in index.weighted]
    return bool(found) and ops.TABLES.issuperset(found)


def _normalisation_behind(index: GraphIndex, chain: list[FlowStep], start: int) -> int:
    """Number of steps behind a block that normalise its sum as the values it starts from were normalised.

    That is what post-norm transformers do; one operator, or up to five steps where it is spelt out.
    """
    for count in range(5, 0, -1):
        before, behind = chain[max(start - count, 0) : start], chain[start + 1 : start + 1 + count]
        kinds = [_kinds(index, step) for step in behind]
        same = len(before) == len(behind) == count and kinds == [_kinds(index, step) for step in before]
        if same and not any(weighted(index, step) for step in behind) and _normalises(set().union(*kinds)):
            return count
    return 0


def _kinds(index: GraphIndex, step: FlowStep) -> set[str]:
    return {ops.qualified(index.nodes[i]) for i in step.nodes}


def _normalises(kinds: set[str]) -> bool:
    """One normalisation operator, or one that the exporter spelt out as means, differences and quotients."""
    if kinds <= ops.NORMALISATION:
        return True
    spelt_out = kinds <= ops.POINTWISE | ops.REDUCTION and not kinds.isdisjoint({"Sub", "Div"})
    return spelt_out and not kinds.isdisjoint(ops.REDUCTION)

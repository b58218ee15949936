"""Coarser and finer layers than the default series: single operators, whole blocks, whole stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.shapes import Shapes
from redtest_onnx.layers.names import common_scope
from redtest_onnx.layers.regions import RESHAPING, Region

Granularity = Literal["operator", "sub-layer", "block", "stage"]
GranularityChoice = Literal["auto", "operator", "sub-layer", "block", "stage"]
GRANULARITIES: tuple[str, ...] = get_args(Granularity)

_HANDED_ON = frozenset({"Cast", "Identity", "Dropout"})
_TAIL = ops.POINTWISE | ops.NORMALISATION


def measured_granularity(choice: GranularityChoice) -> Granularity:
    """What "auto" is where nothing counts layers: the default series."""
    return "sub-layer" if choice == "auto" else choice


def regroup(
    index: GraphIndex, regions: Sequence[Region], shapes: Shapes, granularity: Granularity
) -> tuple[Region, ...]:
    """The regions of another granularity, in the order of the graph.

    Args:
        index: the graph.
        regions: the default series.
        shapes: sizes for one sample; a stage ends where they change.
        granularity: "operator" takes every operator with weights inside the series; "sub-layer" is the series
            itself; "block" joins the attention and the feed-forward sub-layer of a transformer block; "stage"
            joins consecutive layers whose values have the same shape, with the one that brings it about.
    """
    if granularity == "sub-layer":
        return tuple(regions)
    if granularity == "operator":
        return _operators(index, regions, shapes)
    if granularity == "block":
        return _joined(index, regions, lambda group, region: _same_block(index, regions, group, region))
    return _joined(index, regions, lambda group, region: _same_stage(shapes, group, region))


def joined_runs(series: Sequence[Region], regions: Sequence[Region]) -> list[range]:
    """The places in the series of what each region joins.

    Args:
        series: the default series.
        regions: what `regroup` made of it for "block" or "stage".
    """
    place = {region.exit: k for k, region in enumerate(series)}
    runs, begin = [], 0
    for region in regions:
        end = place[region.exit] + 1
        runs.append(range(begin, end))
        begin = end
    return runs


def _operators(index: GraphIndex, regions: Sequence[Region], shapes: Shapes) -> tuple[Region, ...]:
    """Each operator with weights, and what only its bias, normalisation and activation make of it.

    What brings the steps of a recurrent operator back to a sequence is a part of it.
    """
    nodes = sorted({node for region in regions for node in region.core} & index.weighted)
    ends = {region.exit for region in regions}
    found = []
    for node in nodes:
        entries = index.activation_inputs(node)
        tensor = exit_ = _read_output(index, node)
        tail: set[int] = set()
        recurrent = ops.qualified(index.nodes[node]) in ops.RECURRENT
        while exit_ not in ends:
            steps_apart = recurrent and len(shapes.sizes.get(exit_, ())) == 4
            following = _following(index, exit_)
            if following is None and steps_apart:
                following = _reshaping(index, exit_)
            if following is None:
                break
            tail.add(following)
            exit_ = index.nodes[following].output[0]
        entry = entries[0] if entries else None
        found.append(Region(entry, tensor, exit_, frozenset({node}), frozenset(tail)))
    return tuple(found)


def _read_output(index: GraphIndex, node: int) -> str:
    """The first output that anything reads: where only the last state is wanted, the first has no name."""
    made = index.nodes[node].output
    return next((name for name in made if name and (name in index.readers or name in index.outputs)), made[0])


def _following(index: GraphIndex, tensor: str) -> int | None:
    """The only reader of a tensor, if that does no more than bias, normalise or bend its values."""
    return _only(index, tensor, index.readers.get(tensor, ()), _TAIL)


def _reshaping(index: GraphIndex, tensor: str) -> int | None:
    """The only reader of a tensor's values, if that reshapes them, perhaps to sizes read off the tensor."""
    return _only(index, tensor, index.value_readers(tensor), RESHAPING)


def _only(index: GraphIndex, tensor: str, readers: Sequence[int], kinds: frozenset[str]) -> int | None:
    """The reader of a tensor where it is one, of those kinds, without weights, and reads nothing else."""
    if len(readers) != 1 or tensor in index.outputs:
        return None
    fits = ops.qualified(index.nodes[readers[0]]) in kinds and readers[0] not in index.weighted
    return readers[0] if fits and index.activation_inputs(readers[0]) == (tensor,) else None


def _joined(
    index: GraphIndex, regions: Sequence[Region], belongs: Callable[[list[Region], Region], bool]
) -> tuple[Region, ...]:
    """Regions that lie directly behind one another and belong together, as one."""
    groups: list[list[Region]] = []
    for region in regions:
        behind = bool(groups) and groups[-1][0].entry is not None
        behind = behind and _directly_behind(index, groups[-1][-1].exit, region.entry)
        if behind and belongs(groups[-1], region):
            groups[-1].append(region)
        else:
            groups.append([region])
    return tuple(_join(index, group) for group in groups)


def _directly_behind(index: GraphIndex, exit_: str, entry: str | None) -> bool:
    """Whether a region starts from what another gives, perhaps through casts that an exporter left."""
    while entry is not None and entry != exit_:
        producer = index.producer.get(entry)
        if producer is None or ops.qualified(index.nodes[producer]) not in _HANDED_ON:
            return False
        entry = index.nodes[producer].input[0]
    return entry is not None


def _join(index: GraphIndex, group: list[Region]) -> Region:
    if len(group) == 1:
        return group[0]
    exit_ = group[-1].exit
    return Region(group[0].entry, exit_, exit_, index.between(group[0].entry, exit_), frozenset())


def _same_stage(shapes: Shapes, group: list[Region], region: Region) -> bool:
    shape = shapes.sizes.get(region.exit)
    return shape is not None and shape == shapes.sizes.get(group[-1].exit)


def _same_block(index: GraphIndex, regions: Sequence[Region], group: list[Region], region: Region) -> bool:
    """A block is one sub-layer with attention, or several of one module, and the one without behind it."""
    if not all(_attends(index, other) for other in group):
        return False
    if not _attends(index, region):
        return True
    outer = common_scope(index, regions)
    return len(common_scope(index, [*group, region])) > len(outer)


def _attends(index: GraphIndex, region: Region) -> bool:
    kinds = {ops.qualified(index.nodes[node]) for node in region.core}
    return len(region.core) > 1 and not kinds.isdisjoint(ops.ATTENTION)

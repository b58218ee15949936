"""Layers as users see them: a region with its name, cost, and whether it can go or why not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.cost import count_macs, count_parameters, count_shared
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.quantisation import same_scale
from redtest_onnx.graph.reinsert import InlinedBranch
from redtest_onnx.graph.shapes import Shape, Shapes
from redtest_onnx.layers.adaptation import adaptable, adapter_cost
from redtest_onnx.layers.claims import claimed
from redtest_onnx.layers.granularity import GRANULARITIES, Granularity, joined_runs, regroup
from redtest_onnx.layers.kinds import BLOCKS, kind_of
from redtest_onnx.layers.layout import channels_first, channels_last, sequence_channels_first
from redtest_onnx.layers.names import layer_names
from redtest_onnx.layers.regions import Region, escaping_tensor, find_regions


@dataclass(frozen=True)
class SubLayer:
    """A layer of the default series that a larger one holds.

    Attributes:
        name: as in the series.
        kind: what it does, such as "attention".
    """

    name: str
    kind: str


@dataclass(frozen=True)
class Layer:
    """One layer of the series.

    Attributes:
        index: position in the series.
        name: the exporter's scope or the tensor's name; unique in the series.
        kind: operator, or what an indivisible block does.
        operators: number of operators on the way to `tensor`; 1 for a plain operator.
        channels_first: whether it gives sequences [N, C, T], as convolutions do, and not [N, T, C].
        channels_last: whether it gives images [N, H, W, C], their channels behind their positions.
        input: the activation it starts from; None at the model's inputs.
        tensor: the activation measured.
        exit: the activation that leaves the layer.
        shape: sizes of `tensor` for one sample; None if unknown.
        parameters: learned values that go with the layer.
        shared_parameters: learned values it applies that others read, too, so that they stay without it.
        macs: multiply-accumulates for one sample that go with it; None if unknown.
        added_parameters: learned values of the adapter that would take its place; 0 for a bypass.
        added_macs: multiply-accumulates of that adapter.
        action: how it can be removed, "bypass" or "adapter"; None if it can't.
        reason: why it can't be removed, or why it needs an adapter; None for a plain bypass.
        parts: the sub-layers that a block, or the layers that a stage holds; empty for a layer of the default
            series.
    """

    index: int
    name: str
    kind: str
    operators: int
    channels_first: bool
    input: str | None
    tensor: str
    exit: str
    shape: Shape | None
    parameters: int
    macs: int | None
    added_parameters: int
    added_macs: int
    action: str | None
    reason: str | None
    channels_last: bool = False
    shared_parameters: int = 0
    parts: tuple[SubLayer, ...] = ()

    @property
    def removable(self) -> bool:
        """Whether the layer can be taken out of the graph."""
        return self.action is not None


def find_layers(
    index: GraphIndex,
    shapes: Shapes,
    choices: Sequence[InlinedBranch] = (),
    granularity: Granularity = "sub-layer",
) -> tuple[Layer, ...]:
    """The series of layers of a graph.

    Args:
        index: the graph.
        shapes: sizes for one sample, as inferred or, better, as seen in a run.
        choices: branches that were opened in it; a layer ends where its branch does.
        granularity: how much a layer holds, see `regroup`; "sub-layer" is the default series.
    """
    ranks = {name: len(shape) for name, shape in shapes.sizes.items()}
    ends = frozenset(name for choice in choices for name in choice.node.output)
    series = find_regions(index, ranks, ends)
    regions = regroup(index, series, shapes, granularity)
    joined = set(regions) - set(series)
    names = layer_names(index, regions)
    parts = [_part(index, region) for region in regions]
    fates = [_fate(index, region, shapes, part, choices) for region, part in zip(regions, parts, strict=True)]
    held = _held(index, series, regions) if joined and granularity != "operator" else [()] * len(regions)
    counted = claimed(regions, parts, [fate.action is not None for fate in fates])
    return tuple(
        Layer(
            index=i,
            name=name,
            kind=granularity if region in joined and len(region.core) > 1 else kind_of(index, region),
            operators=len(region.core),
            channels_first=sequence_channels_first(
                index, region.tensor, len(shapes.sizes.get(region.tensor, ())), region.core
            ),
            input=region.entry,
            tensor=region.tensor,
            exit=region.exit,
            shape=shapes.sizes.get(region.tensor),
            parameters=count_parameters(index, counted[i]),
            shared_parameters=count_shared(index, counted[i]),
            macs=count_macs(index, shapes, counted[i]),
            added_parameters=fates[i].added[0],
            added_macs=fates[i].added[1],
            action=fates[i].action,
            reason=fates[i].reason,
            channels_last=channels_last(index, region.tensor, ranks.get(region.tensor, 0)),
            parts=held[i],
        )
        for i, (region, name) in enumerate(zip(regions, names, strict=True))
    )


def _held(
    index: GraphIndex, series: Sequence[Region], regions: Sequence[Region]
) -> list[tuple[SubLayer, ...]]:
    """What each joined region holds, in the words of the series."""
    names = layer_names(index, series)
    return [
        tuple(SubLayer(names[k], kind_of(index, series[k])) for k in run) if len(run) > 1 else ()
        for run in joined_runs(series, regions)
    ]


@dataclass(frozen=True)
class _Fate:
    """Whether and how a layer goes, why not or why so, and parameters and MACs of its adapter."""

    action: str | None
    reason: str | None
    added: tuple[int, int] = (0, 0)


def _part(index: GraphIndex, region: Region) -> frozenset[int]:
    """The nodes that go with a layer, and those that others need, too: they are its cost all the same."""
    gone = index.dead_nodes_if_unread([region.exit], kept=[region.entry] if region.entry else [])
    return index.with_feeders(gone | region.nodes)


def _fate(
    index: GraphIndex,
    region: Region,
    shapes: Shapes,
    part: frozenset[int],
    choices: Sequence[InlinedBranch],
) -> _Fate:
    action, reason = _action(index, region, shapes)
    if action and (beyond := _reaching_out(region, index, choices)):
        return _Fate(None, beyond)
    added = _adapter_cost(index, region, shapes) if action == "adapter" else (0, 0)
    macs = count_macs(index, shapes, part)
    if action and count_parameters(index, part) <= added[0] and (macs is None or macs <= added[1]):
        return _Fate(None, _frees_nothing(reason))
    return _Fate(action, reason, added)


def has_branches(layers: Iterable[Layer]) -> bool:
    """Whether some layer is a block with branches, as residual nets and transformers have them."""
    return any(
        layer.operators > 1 and (layer.kind in BLOCKS or layer.kind in GRANULARITIES) for layer in layers
    )


def every_activation(index: GraphIndex, shapes: Shapes, series: Iterable[Layer]) -> tuple[Layer, ...]:
    """All floating-point tensors that follow from the values of the inputs, in graph order.

    These are the layers of the series, what lies between them, and what is made of the inputs before any
    operator with weights.
    """
    known = {layer.tensor: layer for layer in series}
    owner = {name: layer.name for layer in known.values() for name in _inside(index, layer)}
    found: list[Layer] = []
    for i, node in enumerate(index.nodes):
        for name in node.output:
            if not name or name not in index.input_dependent or not shapes.is_float(name):
                continue
            inner = Layer(
                index=0,
                name=name,
                kind=ops.qualified(node),
                operators=1,
                channels_first=sequence_channels_first(index, name, len(shapes.sizes.get(name, ())), [i]),
                input=next(iter(index.activation_inputs(i)), None),
                tensor=name,
                exit=name,
                shape=shapes.sizes.get(name),
                parameters=count_parameters(index, [i]),
                macs=count_macs(index, shapes, [i]),
                added_parameters=0,
                added_macs=0,
                action=None,
                reason=f"it is a part of {owner[name]}" if name in owner else "it is no layer of its own",
                channels_last=channels_last(index, name, len(shapes.sizes.get(name, ()))),
            )
            found.append(replace(known.get(name, inner), index=len(found)))
    return tuple(found)


def _inside(index: GraphIndex, layer: Layer) -> Iterator[str]:
    for node in index.between(layer.input, layer.exit):
        yield from index.nodes[node].output


def _action(index: GraphIndex, region: Region, shapes: Shapes) -> tuple[str | None, str | None]:
    """How a region can be removed, and what speaks against a plain bypass."""
    if kind_of(index, region) in ops.CONTROL_FLOW:
        return None, _kept_whole(index, region)
    if region.entry is None:
        return None, "it reads the model's input: there is no earlier layer to take its place"
    before, after = shapes.sizes.get(region.entry), shapes.sizes.get(region.exit)
    if (extra := escaping_tensor(index, region, shapes.sizes)) is not None:
        return None, extra
    if before is None or after is None:
        unknown = region.entry if before is None else region.exit
        return None, f"the shape of {unknown!r} is unknown"
    types = shapes.dtypes.get(region.entry), shapes.dtypes.get(region.exit)
    if None not in types and types[0] != types[1]:
        return None, "it changes the type of its values"
    if shapes.is_low_bit(region.exit) and not same_scale(index, region.entry, region.exit):
        return None, "its input and output have different quantisation scales"
    if before == after:
        return "bypass", None
    alone = len(before) == len(after) == 1  # vectors without samples in front: their sizes differ
    sizes = ((1, *before), (1, *after)) if alone else (before, after)
    change = f"it changes the shape from {_dims(sizes[0])} to {_dims(sizes[1])}"
    first = channels_first(index, region.entry, region.exit, len(before))
    if shapes.is_float(region.exit) and adaptable(before, after, first):
        return "adapter", change
    return None, f"{change}, which no adapter can do"


def _frees_nothing(change: str | None) -> str:
    """Why a removal that saves nothing is none: its adapter is as large, or others need its weights."""
    if change is None:
        return "removing it frees neither parameters nor multiply-accumulates: others need its weights, too"
    return f"{change}, and an adapter in its place would be as large as the layer itself"


def _kept_whole(index: GraphIndex, region: Region) -> str:
    """Why control flow is not looked into."""
    node = index.nodes[min(region.core)]
    if node.op_type == "If":
        return (
            "its network lies inside the control-flow operator If, which stays whole: its condition "
            f"{node.input[0]!r} depends on what is fed, or the other branch shares values with it"
        )
    return (
        f"its network lies inside the control-flow operator {node.op_type}, which stays whole: it runs once "
        "per step"
    )


def _reaching_out(region: Region, index: GraphIndex, choices: Iterable[InlinedBranch]) -> str | None:
    """Why a region that leaves a branch can't go: what lies behind serves the other branch, too."""
    for choice in choices:
        inside = any(name in choice.inside for node in region.nodes for name in index.nodes[node].output)
        if inside and region.exit not in choice.inside and region.exit not in choice.node.output:
            return f"it reaches beyond {choice}"
    return None


def _adapter_cost(index: GraphIndex, region: Region, shapes: Shapes) -> tuple[int, int]:
    """Parameters and multiply-accumulates of one linear operator with bias in the region's place."""
    assert region.entry is not None
    before, after = shapes.sizes[region.entry], shapes.sizes[region.exit]
    parameters, macs = adapter_cost(
        before, after, channels_first(index, region.entry, region.exit, len(before))
    )
    return parameters, macs // shapes.samples


def _dims(shape: Shape) -> str:
    return "x".join(map(str, shape[1:])) or "scalar"

"""Where the channels of an activation are: in front of its positions, or behind them as TensorFlow has it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex

_FRONT = (
    ops.CONVOLUTION
    | {"BatchNormalization", "InstanceNormalization", "GroupNormalization", "Resize", "Upsample", "LRN"}
    | {"DepthToSpace", "SpaceToDepth", "PRelu"}
    | {f"{scope}{kind}Pool" for scope in ("", "Global") for kind in ("Max", "Average", "Lp")}
)
_LAST = {"MatMul", "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "MatMulInteger"}
_ALIKE = ops.POINTWISE | {"Concat", "Pad", "Slice", "Split", "Identity", "Sum", "Softmax", "Tile"}
_FAR = 64  # nodes to look back


def channel_axis(index: GraphIndex, tensor: str, rank: int) -> int | None:
    """The axis of a tensor's channels, as what makes it or reads it tells; None if nothing does.

    Args:
        index: the graph.
        tensor: an activation.
        rank: its number of axes, three or more.
    """
    found = _by_maker(index, tensor, rank)
    return _by_reader(index, tensor, rank) if found is None else found


def _by_maker(index: GraphIndex, tensor: str, rank: int) -> int | None:
    # Tensors to look at, the nearest first, each with the permutations between the first one and it.
    waiting: deque[tuple[str, tuple[list[int], ...]]] = deque([(tensor, ())])
    seen: set[str] = set()
    while waiting and len(seen) < _FAR:
        name, orders = waiting.popleft()
        producer = index.producer.get(name)
        if name in seen or producer is None:
            continue
        seen.add(name)
        node = index.nodes[producer]
        kind = ops.qualified(node)
        if kind in _FRONT or kind in _LAST:
            axis = 1 if kind in _FRONT else rank - 1
            for order in reversed(orders):
                axis = order.index(axis)
            return axis
        if kind == "Transpose":
            perm = ops.attribute(node, "perm")
            if isinstance(perm, list) and len(perm) == rank:
                waiting.append((node.input[0], (*orders, [int(k) for k in perm])))
        elif kind in _ALIKE:
            waiting.extend((source, orders) for source in index.activation_inputs(producer))
    return None


def _by_reader(index: GraphIndex, tensor: str, rank: int) -> int | None:
    for reader in index.readers.get(tensor, ()):
        node = index.nodes[reader]
        kind = ops.qualified(node)
        if kind in _FRONT and node.input[0] == tensor:
            return 1
        if kind in _LAST and node.input[0] == tensor:
            return rank - 1
        if kind == "Transpose":
            order = ops.attribute(node, "perm")
            behind = (index.nodes[k] for k in index.readers.get(node.output[0], ()))
            if isinstance(order, list) and any(ops.qualified(other) in _FRONT for other in behind):
                return int(order[1])
    return None


def channels_last(index: GraphIndex, tensor: str, rank: int) -> bool:
    """Whether a tensor of images [N, H, W, C] has its channels behind its positions."""
    return rank >= 4 and channel_axis(index, tensor, rank) == rank - 1


def channels_first(index: GraphIndex, entry: str, exit_: str, rank: int) -> bool:
    """Whether values of a region are [N, C, positions...]: images, and what convolutions pass on."""
    if rank >= 4:
        return not (channels_last(index, entry, rank) and channels_last(index, exit_, rank))
    if rank < 3:
        return False
    known = {channel_axis(index, name, rank) for name in (entry, exit_)} - {None}
    return known == {1} if known else _convolves(index, index.between(entry, exit_))


def sequence_channels_first(index: GraphIndex, tensor: str, rank: int, nodes: Iterable[int]) -> bool:
    """Whether a tensor of sequences is [N, C, T], as a convolution among the nodes gives it, not [N, T, C].

    A convolution between two transpositions gives neither.
    """
    axis = channel_axis(index, tensor, rank) if rank == 3 else None
    return _convolves(index, nodes) if axis is None else axis == 1


def _convolves(index: GraphIndex, nodes: Iterable[int]) -> bool:
    return any(ops.qualified(index.nodes[i]) in ops.CONVOLUTION for i in nodes)

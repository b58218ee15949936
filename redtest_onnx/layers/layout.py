"""Where the channels of an activation are: in front of its positions, or behind them as TensorFlow has it."""

from __future__ import annotations

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
    orders: list[list[int]] = []  # permutations between the tensor and where we are
    for _ in range(_FAR):
        producer = index.producer.get(tensor)
        if producer is None:
            return None
        node = index.nodes[producer]
        kind = ops.qualified(node)
        if kind in _FRONT or kind in _LAST:
            axis = 1 if kind in _FRONT else rank - 1
            for order in reversed(orders):
                axis = order.index(axis)
            return axis
        if kind == "Transpose":
            perm = ops.attribute(node, "perm")
            if not isinstance(perm, list) or len(perm) != rank:
                return None
            orders.append([int(k) for k in perm])
            tensor = node.input[0]
            continue
        sources = index.activation_inputs(producer)
        if kind not in _ALIKE or not sources:
            return None
        tensor = sources[0]
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
    kinds = {ops.qualified(index.nodes[i]) for i in index.between(entry, exit_)}
    return rank > 2 and not kinds.isdisjoint(ops.CONVOLUTION)

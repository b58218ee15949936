"""Inner widths: channels that linear operators make and linear operators read, with nothing else in between.

The hidden channels of an MLP, gated or not, those between the convolutions of a residual block, of plain
convolutions one behind the other. Any of them can be left out without a change of a shape outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redtest_onnx.graph.linear_operators import LinearOperator


@dataclass(frozen=True)
class ChannelOperand:
    """A stored operand that holds the channels: which input of which node, and its axis of the channels."""

    node: int
    position: int
    axis: int


@dataclass(frozen=True)
class ChannelPlace:
    """Where a tensor holds the channels.

    Attributes:
        axis: of the channels, counted from the end: -1 for products, -3 for images.
        rank: number of axes; None if unknown.
        block: consecutive places that belong to one channel, after an image was flattened; None until an
            operator that reads them tells.
    """

    axis: int
    rank: int | None
    block: int | None = 1


@dataclass(frozen=True, eq=False)
class InnerWidth:
    """Channels that can be left out.

    Attributes:
        name: of the first operator that makes them.
        channels: how many there are.
        producers: linear operators that make them, in graph order; several where one gates another.
        consumers: linear operators that read them, in graph order.
        operands: stored values with one entry, row or column per channel, weights of producers included.
        weights: weights of the consumers, with the number of rows per channel.
        depthwise: convolutions with one group per channel.
        reshapes: Reshapes that flatten them.
        tensors: what carries them.
    """

    name: str
    channels: int
    producers: tuple[LinearOperator, ...]
    consumers: tuple[LinearOperator, ...]
    operands: tuple[ChannelOperand, ...]
    weights: tuple[tuple[ChannelOperand, int], ...]
    depthwise: tuple[int, ...]
    reshapes: tuple[int, ...]
    tensors: Mapping[str, ChannelPlace]

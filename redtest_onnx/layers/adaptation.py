"""Which linear operator can turn one shape into another: a matrix product, or a strided convolution."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from redtest_onnx.graph.shapes import Shape


@dataclass(frozen=True)
class KernelWindow:
    """How a convolution takes one axis from one size to another without padding.

    Attributes:
        stride: its stride.
        size: values of its kernel.
    """

    stride: int
    size: int


def windows(before: Shape, after: Shape) -> list[KernelWindow] | None:
    """A window per position axis that takes sizes to others; None if an axis grows or shrinks too little.

    Where the sizes divide, all values are covered (16 to 8: two at a time); else the ones that a convolution
    of this stride would look at (15 to 8: each second one).

    Args:
        before: sizes of the position axes.
        after: likewise, behind the layer.
    """
    found = [_window(a, b) for a, b in zip(before, after, strict=True)]
    return None if any(window is None for window in found) else [w for w in found if w is not None]


def _window(a: int, b: int) -> KernelWindow | None:
    if not a >= b > 0:
        return None
    for stride in dict.fromkeys((-(-a // b), a // b)):
        least, most = max(1, a - b * stride + 1), a - (b - 1) * stride
        size = min(max(stride, least), most)
        if least <= size <= 2 * stride + 1:
            return KernelWindow(stride, size)
    return None


def adaptable(before: Shape, after: Shape, channels_first: bool) -> bool:
    """Whether one linear operator can turn the first shape into the second.

    Vectors, sequences and images with their channels behind change their last axis; images [N, C, H, W] and
    signals [N, C, L], and images [N, H, W, C], change their channels and shrink.
    """
    if len(before) != len(after) or before[0] != after[0] or len(before) < 2:
        return False
    positions = (before[2:], after[2:]) if channels_first else (before[1:-1], after[1:-1])
    if not channels_first and len(before) <= 3:
        return positions[0] == positions[1]
    return windows(*positions) is not None


def adapter_cost(before: Shape, after: Shape, channels_first: bool) -> tuple[int, int]:
    """Parameters and multiply-accumulates of that operator with its bias."""
    channel = 1 if channels_first else -1
    positions = (before[2:], after[2:]) if channels_first else (before[1:-1], after[1:-1])
    found = windows(*positions) or []
    inputs = before[channel] * prod(window.size for window in found)
    return (inputs + 1) * after[channel], inputs * prod(after)

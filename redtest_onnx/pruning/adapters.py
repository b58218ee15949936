"""Adapters: what stands in for a layer that changes the shape of its values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from redtest_onnx.graph.shapes import Shape
from redtest_onnx.graph.surgery import Operator


def plain_adapter(before: Shape, after: Shape, dtype: npt.DTypeLike) -> tuple[Operator, ...]:
    """An adapter without fitted values: positions are averaged, channels kept, cut off or filled with zeros.

    Args:
        before: sizes of what comes in, [n, C, H, W], [n, T, D] or [n, D].
        after: sizes of what must come out, of the same rank.
        dtype: type of the activations.
    """
    if len(before) != 4:
        weight = np.eye(before[-1], after[-1], dtype=dtype)
        return (Operator("MatMul", (weight,)),)
    stride = [-(-a // b) for a, b in zip(before[2:], after[2:], strict=True)]
    identity = np.eye(after[1], before[1])[:, :, None, None]
    weight = np.broadcast_to(identity / np.prod(stride), (after[1], before[1], *stride)).astype(dtype)
    return (convolution(weight, before, after),)


def convolution(
    weight: npt.NDArray[np.generic], before: Shape, after: Shape, *bias: npt.NDArray[np.generic]
) -> Operator:
    """The convolution [M, C, h, w] that turns images of one size into another.

    The stride is the ratio of the sizes; what the kernel sticks out is padded evenly, the odd rest behind.
    """
    kernel = weight.shape[2:]
    stride = [-(-a // b) for a, b in zip(before[2:], after[2:], strict=True)]
    excess = [
        max((b - 1) * s + k - a, 0) for a, b, s, k in zip(before[2:], after[2:], stride, kernel, strict=True)
    ]
    pads = [e // 2 for e in excess] + [e - e // 2 for e in excess]
    attributes = {"kernel_shape": list(kernel), "strides": stride, "pads": pads}
    return Operator("Conv", (weight, *bias), attributes)

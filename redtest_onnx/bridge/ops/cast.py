"""Conversions between element types."""

from __future__ import annotations

import torch
from torch import Tensor

from redtest_onnx.bridge.registry import operator


@operator("Cast", since=6)
def cast(x: Tensor, *, to: torch.dtype, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """Values in another type; saturation and rounding concern 8-bit floats only, which are refused."""
    return x.to(to)


@operator("CastLike", since=15)
def cast_like(x: Tensor, target: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """Values in the type of another tensor."""
    return x.to(target.dtype)


@operator("BitCast", since=26, differentiable=False)
def bit_cast(x: Tensor, *, to: torch.dtype) -> Tensor:
    """The same bits read as another type of the same size."""
    return x.view(to)

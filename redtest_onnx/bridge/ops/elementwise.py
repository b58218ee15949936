"""Arithmetic, comparisons and logic, element by element with broadcasting."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from redtest_onnx.bridge.ops.numbers import single
from redtest_onnx.bridge.registry import Kernel, operator

_FUNCTIONS: dict[str, Kernel] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Log": torch.log,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
}
# Before version 7 broadcasting was an attribute.
_ARITHMETIC: dict[str, Kernel] = {"Add": torch.add, "Mul": torch.mul, "Sub": torch.sub}
_LOGIC: dict[str, tuple[Kernel, int]] = {
    "And": (torch.logical_and, 7),
    "BitwiseAnd": (torch.bitwise_and, 18),
    "BitwiseNot": (torch.bitwise_not, 18),
    "BitwiseOr": (torch.bitwise_or, 18),
    "BitwiseXor": (torch.bitwise_xor, 18),
    "Equal": (torch.eq, 7),
    "Greater": (torch.gt, 7),
    "GreaterOrEqual": (torch.ge, 12),
    "IsNaN": (torch.isnan, 9),
    "Less": (torch.lt, 7),
    "LessOrEqual": (torch.le, 12),
    "Not": (torch.logical_not, 1),
    "Or": (torch.logical_or, 7),
    "Xor": (torch.logical_xor, 7),
}
for _name, _kernel in _FUNCTIONS.items():
    operator(_name)(_kernel)
for _name, _kernel in _ARITHMETIC.items():
    operator(_name, since=7)(_kernel)
for _name, (_kernel, _since) in _LOGIC.items():
    operator(_name, since=_since, differentiable=False)(_kernel)
operator("Where", since=9)(torch.where)


@operator("Identity")
def identity(x: Tensor) -> Tensor:
    """The input itself."""
    return x


@operator("Div", since=7)
def divide(a: Tensor, b: Tensor) -> Tensor:
    """Quotient; integers round towards zero."""
    if a.is_floating_point() or a.is_complex():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


@operator("Mod", since=10)
def modulo(a: Tensor, b: Tensor, *, fmod: int) -> Tensor:
    """Remainder with the sign of the divisor, or with that of the dividend where `fmod` is set."""
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


@operator("Pow", since=7)
def power(base: Tensor, exponent: Tensor) -> Tensor:
    """Power, in the type of the base."""
    return torch.pow(base, exponent).to(base.dtype)


@operator("Max", since=8)
def maximum(*xs: Tensor) -> Tensor:
    """Largest of the inputs."""
    return reduce(torch.maximum, xs)


@operator("Min", since=8)
def minimum(*xs: Tensor) -> Tensor:
    """Smallest of the inputs."""
    return reduce(torch.minimum, xs)


@operator("Sum", since=8)
def add_all(*xs: Tensor) -> Tensor:
    """Sum of the inputs."""
    return reduce(torch.add, xs)


@operator("Mean", since=8)
def average(*xs: Tensor) -> Tensor:
    """Mean of the inputs."""
    return add_all(*xs) / len(xs)


@operator("Clip", since=11, numbers=(1, 2))
def clip(
    x: Tensor, low: float | list[float] | None = None, high: float | list[float] | None = None
) -> Tensor:
    """Values moved into [low, high]; all are `high` where the bounds cross."""
    least, most = (None if bound is None else single(bound) for bound in (low, high))
    return x if least is None and most is None else torch.clamp(x, least, most)


@operator("Clip", since=6)
def clip_6(x: Tensor, *, min: float | None = None, max: float | None = None) -> Tensor:  # noqa: A002
    """Clip by attributes."""
    return clip(x, min, max)


@operator("BitShift", since=11, differentiable=False)
def bit_shift(x: Tensor, bits: Tensor, *, direction: str) -> Tensor:
    """Bits moved to the left or right."""
    return torch.bitwise_left_shift(x, bits) if direction == "LEFT" else torch.bitwise_right_shift(x, bits)


@operator("IsInf", since=10, differentiable=False)
def is_infinite(x: Tensor, *, detect_negative: int, detect_positive: int) -> Tensor:
    """Where the values are infinite, of the signs asked for."""
    found = torch.isinf(x)
    if not detect_negative:
        found = found & (x > 0)
    if not detect_positive:
        found = found & (x < 0)
    return found

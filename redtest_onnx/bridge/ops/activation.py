"""Activation functions, softmax among them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from redtest_onnx.bridge.registry import operator

operator("Relu")(torch.relu)
operator("Sigmoid")(torch.sigmoid)
operator("Tanh")(torch.tanh)


@operator("Softplus")
def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x))."""
    return functional.softplus(x)


@operator("Softsign")
def softsign(x: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return functional.softsign(x)


@operator("Mish", since=18)
def mish(x: Tensor) -> Tensor:
    """x tanh(softplus(x))."""
    return functional.mish(x)


@operator("HardSwish", since=14)
def hard_swish(x: Tensor) -> Tensor:
    """x clip(x / 6 + 1 / 2, 0, 1)."""
    return functional.hardswish(x)


@operator("LeakyRelu", since=6)
def leaky_relu(x: Tensor, *, alpha: float) -> Tensor:
    """x above zero, alpha x below."""
    return functional.leaky_relu(x, alpha)


@operator("PRelu", since=7, weights=(1,))
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """x above zero, slope x below, with slopes that broadcast to x."""
    return torch.where(x < 0, slope * x, x)


@operator("Elu", since=6)
def elu(x: Tensor, *, alpha: float) -> Tensor:
    """x above zero, alpha (exp(x) - 1) below."""
    return functional.elu(x, alpha)


@operator("Selu", since=6)
def selu(x: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Elu scaled by gamma."""
    return gamma * functional.elu(x, alpha)


@operator("Celu", since=12)
def celu(x: Tensor, *, alpha: float) -> Tensor:
    """x above zero, alpha (exp(x / alpha) - 1) below."""
    return functional.celu(x, alpha)


@operator("HardSigmoid", since=6)
def hard_sigmoid(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    """clip(alpha x + beta, 0, 1)."""
    return torch.clamp(alpha * x + beta, 0, 1)


@operator("ThresholdedRelu", since=10)
def thresholded_relu(x: Tensor, *, alpha: float) -> Tensor:
    """x above alpha, zero elsewhere."""
    return functional.threshold(x, alpha, 0.0)


@operator("Gelu", since=20)
def gelu(x: Tensor, *, approximate: str) -> Tensor:
    """x times the normal distribution function of x, exact or by tanh."""
    return functional.gelu(x, approximate=approximate)


@operator("Swish", since=24)
def swish(x: Tensor, *, alpha: float) -> Tensor:
    """x sigmoid(alpha x)."""
    return x * torch.sigmoid(alpha * x)


@operator("Shrink", since=9)
def shrink(x: Tensor, *, bias: float, lambd: float) -> Tensor:
    """Values beyond [-lambd, lambd] moved by bias towards zero; zero inside."""
    inside = torch.zeros_like(x)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, inside))


@operator("Softmax", since=13)
def softmax(x: Tensor, *, axis: int) -> Tensor:
    """Softmax along one axis."""
    return torch.softmax(x, axis)


@operator("LogSoftmax", since=13)
def log_softmax(x: Tensor, *, axis: int) -> Tensor:
    """Logarithm of the softmax along one axis."""
    return torch.log_softmax(x, axis)


@operator("Hardmax", since=13, differentiable=False)
def hardmax(x: Tensor, *, axis: int) -> Tensor:
    """One at the first maximum along one axis, zero elsewhere."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)


@operator("Softmax")
def softmax_1(x: Tensor, *, axis: int = 1) -> Tensor:
    """Softmax over all axes from `axis` on, as before version 13."""
    return torch.softmax(_flat(x, axis), 1).reshape(x.shape)


@operator("LogSoftmax")
def log_softmax_1(x: Tensor, *, axis: int = 1) -> Tensor:
    """Logarithm of the softmax over all axes from `axis` on, as before version 13."""
    return torch.log_softmax(_flat(x, axis), 1).reshape(x.shape)


@operator("Hardmax", differentiable=False)
def hardmax_1(x: Tensor, *, axis: int = 1) -> Tensor:
    """Hardmax over all axes from `axis` on, as before version 13."""
    return hardmax(_flat(x, axis), axis=1).reshape(x.shape)


def _flat(x: Tensor, axis: int) -> Tensor:
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    return x.reshape(rows, -1)

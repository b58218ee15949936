"""Normalisations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from redtest_onnx.bridge.registry import ConversionContext, operator

_STATISTICS = (3, 4)


@operator("BatchNormalization", since=7, weights=(1, 2), fixed=_STATISTICS, pure=False)
def batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float,
    momentum: float,
    spatial: int = 1,
    context: ConversionContext,
) -> Tensor:
    """Batch normalisation of [N, C, ...].

    With batch statistics, the stored mean and variance are updated in place. ONNX weighs the old statistics
    with the momentum, torch the new ones.
    """
    return functional.batch_norm(
        x, mean, variance, scale, bias, context.batch_statistics, momentum=1 - momentum, eps=epsilon
    )


@operator("BatchNormalization", since=14, weights=(1, 2), fixed=_STATISTICS, pure=False)
def batch_norm_14(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float,
    momentum: float,
    training_mode: int,
    context: ConversionContext,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Batch normalisation; a node in training mode returns the updated statistics instead of storing them."""
    if not training_mode:
        return batch_norm(x, scale, bias, mean, variance, epsilon=epsilon, momentum=momentum, context=context)
    axes = (0, *range(2, x.dim()))
    batch_variance, batch_mean = torch.var_mean(x, axes, correction=0)
    y = functional.batch_norm(x, None, None, scale, bias, training=True, eps=epsilon)
    return (
        y,
        mean * momentum + batch_mean * (1 - momentum),
        variance * momentum + batch_variance * (1 - momentum),
    )


@operator("InstanceNormalization", since=6, weights=(1, 2))
def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float) -> Tensor:
    """Normalise each channel of each sample of [N, C, spatial...]."""
    shape = (-1, *[1] * (x.dim() - 2))
    normal = _standardised(x, tuple(range(2, x.dim())), epsilon)[0]
    return normal * scale.reshape(shape) + bias.reshape(shape)


@operator("LayerNormalization", since=1, weights=(1, 2))
def layer_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    outputs: int,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Normalise over all axes from `axis` on; further outputs are the mean and 1 / standard deviation."""
    shape = x.shape[axis:]
    if outputs == 1 and scale.shape == shape and (bias is None or bias.shape == shape):
        return functional.layer_norm(x, shape, scale, bias, epsilon)
    wide = x.float() if stash_type == 1 and x.dtype is not torch.float64 else x
    normal, mean, deviation = _standardised(wide, tuple(range(x.dim())[axis:]), epsilon)
    y = normal.to(x.dtype) * scale
    y = y if bias is None else y + bias
    return y if outputs == 1 else (y, mean, deviation)


@operator("GroupNormalization", since=18, weights=(1, 2))
def group_norm_18(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float, num_groups: int) -> Tensor:
    """Group normalisation with one scale and bias per group."""
    channels = x.shape[1] // num_groups
    return functional.group_norm(
        x, num_groups, scale.repeat_interleave(channels), bias.repeat_interleave(channels), epsilon
    )


@operator("GroupNormalization", since=21, weights=(1, 2))
def group_norm(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float, num_groups: int, stash_type: int
) -> Tensor:
    """Group normalisation with one scale and bias per channel."""
    return functional.group_norm(x, num_groups, scale, bias, epsilon)


@operator("RMSNormalization", since=23, weights=(1,))
def rms_norm(
    x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """Divide by the root mean square over all axes from `axis` on (Zhang and Sennrich 2019)."""
    if scale.shape == x.shape[axis:]:
        return functional.rms_norm(x, x.shape[axis:], scale, epsilon)
    wide = x.float() if stash_type == 1 and x.dtype is not torch.float64 else x
    square = wide.square().mean(tuple(range(x.dim())[axis:]), keepdim=True)
    return (wide * torch.rsqrt(square + epsilon)).to(x.dtype) * scale


@operator("LRN")
def local_response_norm(x: Tensor, *, alpha: float, beta: float, bias: float, size: int) -> Tensor:
    """Divide by a power of the mean square of the neighbouring channels (Krizhevsky et al. 2012)."""
    front = (size - 1) // 2
    padded = functional.pad(x.square(), [0, 0] * (x.dim() - 2) + [front, size - 1 - front])
    square = padded.unfold(1, size, 1).sum(-1)
    return x / (bias + alpha / size * square) ** beta


@operator("LpNormalization")
def lp_norm(x: Tensor, *, axis: int, p: int) -> Tensor:
    """Divide by the Lp norm along one axis; vectors of zeros stay zero."""
    norm: Tensor = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return x / norm.masked_fill(norm == 0, 1)


@operator("MeanVarianceNormalization", since=9)
def mean_variance_norm(x: Tensor, *, axes: Sequence[int]) -> Tensor:
    """Subtract the mean and divide by the standard deviation over some axes."""
    variance, mean = torch.var_mean(x, tuple(axes), correction=0, keepdim=True)
    return (x - mean) / (variance.sqrt() + 1e-9)


def _standardised(x: Tensor, axes: Sequence[int], epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """x with mean 0 and variance 1 over the axes, its mean, and 1 / its standard deviation."""
    variance, mean = torch.var_mean(x, tuple(axes), correction=0, keepdim=True)
    deviation = torch.rsqrt(variance + epsilon)
    return (x - mean) * deviation, mean, deviation

"""Dropout and random numbers.

Random operators draw from torch's generator, so that `torch.manual_seed` governs a run. A `seed` attribute
can't be honoured: its numbers are those of the runtime that made the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from redtest_onnx.bridge.ops.numbers import single
from redtest_onnx.bridge.registry import ConversionContext, operator


@operator("Dropout", since=7, pure=False)
def dropout_7(x: Tensor, *, ratio: float = 0.5, context: ConversionContext) -> tuple[Tensor, Tensor]:
    """Dropout with the ratio as attribute, active in `train()`."""
    return dropout(x, ratio, context=context)


@operator("Dropout", since=12, numbers=(1, 2), pure=False)
def dropout(
    x: Tensor,
    ratio: float | list[float] | None = None,
    training: bool | list[bool] | None = None,
    *,
    seed: int | None = None,
    context: ConversionContext,
) -> tuple[Tensor, Tensor]:
    """Zero a share of the elements and scale up the others, in `train()` or where the graph says so."""
    probability = 0.5 if ratio is None else single(ratio)
    active = context.training or (training is not None and single(training))
    if not active or probability == 0:
        return x, torch.ones_like(x, dtype=torch.bool)
    mask = torch.rand_like(x) >= probability
    return x * mask / (1 - probability), mask


@operator("RandomNormal", pure=False, differentiable=False)
def random_normal(
    *,
    shape: Sequence[int],
    mean: float,
    scale: float,
    dtype: torch.dtype,
    seed: float | None = None,
    context: ConversionContext,
) -> Tensor:
    """Normal random numbers."""
    return torch.randn(tuple(shape), dtype=dtype, device=context.device) * scale + mean


@operator("RandomUniform", pure=False, differentiable=False)
def random_uniform(
    *,
    shape: Sequence[int],
    low: float,
    high: float,
    dtype: torch.dtype,
    seed: float | None = None,
    context: ConversionContext,
) -> Tensor:
    """Uniform random numbers."""
    return torch.rand(tuple(shape), dtype=dtype, device=context.device) * (high - low) + low


@operator("RandomNormalLike", pure=False, differentiable=False)
def random_normal_like(
    x: Tensor, *, mean: float, scale: float, dtype: torch.dtype | None = None, seed: float | None = None
) -> Tensor:
    """Normal random numbers in the shape of x."""
    return torch.randn_like(x, dtype=dtype or x.dtype) * scale + mean


@operator("RandomUniformLike", pure=False, differentiable=False)
def random_uniform_like(
    x: Tensor, *, low: float, high: float, dtype: torch.dtype | None = None, seed: float | None = None
) -> Tensor:
    """Uniform random numbers in the shape of x."""
    return torch.rand_like(x, dtype=dtype or x.dtype) * (high - low) + low


@operator("Bernoulli", since=15, pure=False, differentiable=False)
def bernoulli(x: Tensor, *, dtype: torch.dtype | None = None, seed: float | None = None) -> Tensor:
    """One with the probability x, else zero."""
    return torch.bernoulli(x).to(dtype or x.dtype)


@operator("Multinomial", since=7, pure=False, differentiable=False)
def multinomial(x: Tensor, *, dtype: torch.dtype, sample_size: int, seed: float | None = None) -> Tensor:
    """Classes drawn from unnormalised log-probabilities [batch, classes]."""
    return torch.multinomial(torch.softmax(x, -1), sample_size, replacement=True).to(dtype)

"""Write elements by position."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from redtest_onnx.bridge.ops.indexing import flat_index, wrapped
from redtest_onnx.bridge.registry import operator

_REDUCE = {"mul": "prod", "max": "amax", "min": "amin"}


@operator("ScatterElements", since=11, fixed=(1,))
def scatter_elements(
    x: Tensor, indices: Tensor, updates: Tensor, *, axis: int, reduction: str = "none"
) -> Tensor:
    """Elements at the given positions of an axis replaced by, or combined with, the updates."""
    places = wrapped(indices, x.shape[axis])
    if reduction == "none":
        return x.scatter(axis, places, updates)
    if reduction == "add":
        return x.scatter_add(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, _REDUCE[reduction])


@operator("Scatter", since=9, fixed=(1,))
def scatter(x: Tensor, indices: Tensor, updates: Tensor, *, axis: int) -> Tensor:
    """The former name of ScatterElements."""
    return scatter_elements(x, indices, updates, axis=axis)


@operator("ScatterND", since=11, fixed=(1,))
def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    """Elements or slices at positions of several indices each replaced by, or combined with, updates."""
    depth = indices.shape[-1]
    places = flat_index(indices, x.shape).reshape(-1)
    rows = x.reshape(math.prod(x.shape[:depth]), -1)
    news = updates.reshape(places.shape[0], -1)
    if reduction == "none":
        rows = rows.index_copy(0, places, news)
    elif reduction == "add":
        rows = rows.index_add(0, places, news)
    else:
        rows = rows.scatter_reduce(0, places[:, None].expand_as(news), news, _REDUCE[reduction])
    return rows.reshape(x.shape)


@operator("TensorScatter", since=24, fixed=(2,))
def tensor_scatter(
    cache: Tensor, update: Tensor, start: Tensor | None = None, *, axis: int, mode: str
) -> Tensor:
    """A cache with new steps written behind those it holds, round its end in circular mode."""
    axis %= cache.dim()
    length = cache.shape[axis]
    if start is None:
        start = torch.zeros(cache.shape[0], dtype=torch.int64, device=cache.device)
    steps = start.long()[:, None] + torch.arange(update.shape[axis], device=cache.device)
    places = steps % length if mode == "circular" else steps
    shape = [1] * update.dim()
    shape[0], shape[axis] = places.shape
    return cache.scatter(axis, places.reshape(shape).expand_as(update), update)

"""Read elements by position, and find positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from redtest_onnx.bridge.ops.numbers import single
from redtest_onnx.bridge.registry import operator


def wrapped(indices: Tensor, size: int) -> Tensor:
    """Indices with negative ones counted from the end."""
    indices = indices.long()
    return torch.where(indices < 0, indices + size, indices)


@operator("Gather", weights=(0,), fixed=(1,))
def gather(x: Tensor, indices: Tensor, *, axis: int) -> Tensor:
    """Slices of an axis at the given positions."""
    axis %= x.dim()
    flat = wrapped(indices, x.shape[axis]).reshape(-1)
    return x.index_select(axis, flat).reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


@operator("GatherElements", since=11, fixed=(1,))
def gather_elements(x: Tensor, indices: Tensor, *, axis: int) -> Tensor:
    """One element for each index, along an axis."""
    return x.gather(axis, wrapped(indices, x.shape[axis]))


@operator("GatherND", since=11, fixed=(1,))
def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """Elements or slices at positions given by several indices each, after common batch axes."""
    depth = indices.shape[-1]
    batch = x.shape[:batch_dims]
    parts = [wrapped(indices[..., i], x.shape[batch_dims + i]) for i in range(depth)]
    rank = indices.dim() - 1
    rows = [
        torch.arange(size, device=x.device).reshape(*[1] * i, -1, *[1] * (rank - i - 1))
        for i, size in enumerate(batch)
    ]
    return x[(*rows, *parts)]


@operator("ArrayFeatureExtractor", domain="ai.onnx.ml", fixed=(1,))
def array_features(x: Tensor, indices: Tensor) -> Tensor:
    """Columns of the last axis."""
    picked = x.index_select(-1, indices.reshape(-1).long())
    return picked if x.dim() > 1 else picked.reshape(1, -1)


@operator("OneHot", since=9, fixed=(0,), numbers=(1,), differentiable=False)
def one_hot(indices: Tensor, depth: float | list[float], values: Tensor, *, axis: int) -> Tensor:
    """The second value at each index along a new axis, the first elsewhere."""
    size = int(single(depth))
    places = wrapped(indices, size).unsqueeze(axis)
    rank = places.dim()
    steps = torch.arange(size, device=indices.device).reshape(-1, *[1] * (rank - 1 - axis % rank))
    return torch.where(places == steps, values[1], values[0])


@operator("TopK", since=10, numbers=(1,))
def top_k(x: Tensor, k: list[int], *, axis: int, largest: int = 1, sorted: int = 1) -> tuple[Tensor, Tensor]:  # noqa: A002
    """The k largest or smallest values along an axis and their positions, the first of equals first."""
    values, indices = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    return values.narrow(axis, 0, single(k)), indices.narrow(axis, 0, single(k))


@operator("TopK")
def top_k_1(x: Tensor, *, axis: int, k: int) -> tuple[Tensor, Tensor]:
    """TopK with k as attribute."""
    return top_k(x, [k], axis=axis)


@operator("NonZero", since=9, differentiable=False)
def non_zero(x: Tensor) -> Tensor:
    """Positions of all elements that are not zero, [rank, count]."""
    return torch.nonzero(x).T


@operator("Compress", since=9, fixed=(1,))
def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    """Slices of an axis (elements of the flat tensor without one) where the condition holds."""
    if axis is None:
        x, axis = x.flatten(), 0
    return x.index_select(axis, torch.nonzero(condition).flatten())


@operator("ReverseSequence", since=10, fixed=(1,))
def reverse_sequence(x: Tensor, lengths: Tensor, *, batch_axis: int, time_axis: int) -> Tensor:
    """The first `lengths` steps of each sequence in reverse order."""
    steps = torch.arange(x.shape[time_axis], device=x.device)
    ends = lengths.unsqueeze(1)
    places = torch.where(steps < ends, ends - 1 - steps, steps)
    if time_axis < batch_axis:
        places = places.T
    shape = [1] * x.dim()
    shape[time_axis], shape[batch_axis] = x.shape[time_axis], x.shape[batch_axis]
    return x.gather(time_axis, places.reshape(shape).expand(x.shape))


@operator("Unique", since=11, differentiable=False)
def unique(x: Tensor, *, axis: int | None = None, sorted: int) -> tuple[Tensor, ...]:  # noqa: A002
    """Distinct values (slices of an axis), their first positions, the place of each input, and counts."""
    source = x.flatten() if axis is None else x
    along = 0 if axis is None else axis
    values, inverse, counts = torch.unique(source, return_inverse=True, return_counts=True, dim=along)
    first = torch.full_like(counts, inverse.numel()).scatter_reduce(
        0, inverse, torch.arange(inverse.numel(), device=x.device), "amin"
    )
    if not sorted:
        order = first.argsort()
        values, first, counts = values.index_select(along, order), first[order], counts[order]
        inverse = order.argsort()[inverse]
    return values, first, inverse, counts


def flat_index(indices: Tensor, sizes: Sequence[int]) -> Tensor:
    """One index into the flattened leading axes for each vector of indices in the last axis."""
    flat = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=indices.device)
    for i in range(indices.shape[-1]):
        flat = flat * sizes[i] + wrapped(indices[..., i], sizes[i])
    return flat

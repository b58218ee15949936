"""Reductions over axes, running sums and positions of extremes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from redtest_onnx.bridge.ops.numbers import single
from redtest_onnx.bridge.registry import operator

Reduction: TypeAlias = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def _total(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keepdim=keep)
    count = math.prod(x.shape[axis] for axis in axes)
    return torch.div(_total(x, axes, keep), count, rounding_mode="trunc")


def _max(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return _filled(x, axes, keep, largest=False) if _is_empty(x, axes) else x.amax(axes, keepdim=keep)


def _min(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return _filled(x, axes, keep, largest=True) if _is_empty(x, axes) else x.amin(axes, keepdim=keep)


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _l1(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return _total(x.abs(), axes, keep)


def _l2(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    wide = x if x.is_floating_point() else x.double()
    norm: Tensor = torch.linalg.vector_norm(wide, 2, axes, keepdim=keep)
    return norm.to(x.dtype)


def _sum_square(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return _total(x * x, axes, keep)


def _log_sum(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return _total(x, axes, keep).log().to(x.dtype)


def _log_sum_exp(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    wide = x if x.is_floating_point() else x.double()
    return torch.logsumexp(wide, axes, keepdim=keep).to(x.dtype)


def _is_empty(x: Tensor, axes: tuple[int, ...]) -> bool:
    return any(x.shape[axis] == 0 for axis in axes)


def _filled(x: Tensor, axes: tuple[int, ...], keep: bool, *, largest: bool) -> Tensor:
    """What a maximum or minimum over nothing is: the other end of the type's range."""
    shape = x.sum(axes, keepdim=keep).shape
    if x.dtype is torch.bool:
        return x.new_full(shape, largest)
    if x.is_floating_point():
        return x.new_full(shape, math.inf if largest else -math.inf)
    limits = torch.iinfo(x.dtype)
    return x.new_full(shape, limits.max if largest else limits.min)


def by_attribute(reduction: Reduction, x: Tensor, *, axes: Sequence[int] = (), keepdims: int) -> Tensor:
    """Reduce over the axes of the attribute, over all if there are none."""
    return (
        reduction(x, tuple(axes) or tuple(range(x.dim())), bool(keepdims))
        if x.dim()
        else reduction(x, (), True)
    )


def by_input(
    reduction: Reduction,
    x: Tensor,
    axes: Sequence[int] | None = None,
    *,
    keepdims: int,
    noop_with_empty_axes: int,
) -> Tensor:
    """Reduce over the axes of the input; over all, or over none if asked for, where there are none."""
    if not axes and noop_with_empty_axes:
        return reduction(x.unsqueeze(0), (0,), False)
    return by_attribute(reduction, x, axes=axes or (), keepdims=keepdims)


for _name, _reduction in {
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": _max,
    "ReduceMean": _mean,
    "ReduceMin": _min,
    "ReduceProd": _product,
    "ReduceSum": _total,
    "ReduceSumSquare": _sum_square,
}.items():
    operator(_name)(partial(by_attribute, _reduction))
    operator(_name, since=13 if _name == "ReduceSum" else 18, numbers=(1,))(partial(by_input, _reduction))


@operator("ArgMax", differentiable=False)
def arg_max(x: Tensor, *, axis: int, keepdims: int, select_last_index: int = 0) -> Tensor:
    """Position of the first (or last) maximum along an axis."""
    if not select_last_index:
        return x.argmax(axis, keepdim=bool(keepdims))
    return x.shape[axis] - 1 - x.flip(axis).argmax(axis, keepdim=bool(keepdims))


@operator("ArgMin", differentiable=False)
def arg_min(x: Tensor, *, axis: int, keepdims: int, select_last_index: int = 0) -> Tensor:
    """Position of the first (or last) minimum along an axis."""
    if not select_last_index:
        return x.argmin(axis, keepdim=bool(keepdims))
    return x.shape[axis] - 1 - x.flip(axis).argmin(axis, keepdim=bool(keepdims))


def _running(
    accumulate: Callable[[Tensor, int], Tensor],
    start: float,
    x: Tensor,
    axis: int,
    exclusive: int,
    reverse: int,
) -> Tensor:
    x = x.flip(axis) if reverse else x
    if exclusive:
        first = torch.full_like(x.narrow(axis, 0, 1), start)
        x = torch.cat([first, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
    y = accumulate(x, axis).to(x.dtype)
    return y.flip(axis) if reverse else y


@operator("CumSum", since=11, numbers=(1,))
def cumulative_sum(x: Tensor, axis: int | list[int], *, exclusive: int, reverse: int) -> Tensor:
    """Running sum along an axis, with or without the element itself."""
    return _running(torch.cumsum, 0, x, single(axis), exclusive, reverse)


@operator("CumProd", since=26, numbers=(1,))
def cumulative_product(x: Tensor, axis: int | list[int], *, exclusive: int, reverse: int) -> Tensor:
    """Running product along an axis, with or without the element itself."""
    return _running(torch.cumprod, 1, x, single(axis), exclusive, reverse)

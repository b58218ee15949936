"""Sequences of tensors (Python lists) and optional values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from redtest_onnx.bridge.ops.numbers import single
from redtest_onnx.bridge.program import SubgraphProgram
from redtest_onnx.bridge.registry import ConversionContext, operator


@operator("SequenceEmpty", since=11, pure=False)
def sequence_empty(*, dtype: int = 1) -> list[Tensor]:
    """A sequence of nothing."""
    return []


@operator("SequenceConstruct", since=11, pure=False)
def sequence_construct(*items: Tensor) -> list[Tensor]:
    """A sequence of the inputs."""
    return list(items)


@operator("SequenceAt", since=11, numbers=(1,), pure=False)
def sequence_at(items: list[Tensor], position: int | list[int]) -> Tensor:
    """One item."""
    return items[single(position)]


@operator("SequenceInsert", since=11, numbers=(2,), pure=False)
def sequence_insert(
    items: list[Tensor], item: Tensor, position: int | list[int] | None = None
) -> list[Tensor]:
    """A sequence with one more item, at the end by default."""
    place = len(items) if position is None else single(position)
    return [*items[:place], item, *items[place:]]


@operator("SequenceErase", since=11, numbers=(1,), pure=False)
def sequence_erase(items: list[Tensor], position: int | list[int] | None = None) -> list[Tensor]:
    """A sequence without one item, the last by default."""
    place = (-1 if position is None else single(position)) % len(items)
    return [*items[:place], *items[place + 1 :]]


@operator("SequenceLength", since=11, pure=False, differentiable=False)
def sequence_length(items: list[Tensor], *, context: ConversionContext) -> Tensor:
    """Number of items."""
    return torch.tensor(len(items), device=context.device)


@operator("SplitToSequence", since=11, numbers=(1,), pure=False)
def split_to_sequence(
    x: Tensor, sizes: int | list[int] | None = None, *, axis: int, keepdims: int
) -> list[Tensor]:
    """Pieces of a tensor along an axis."""
    if sizes is None:
        pieces = torch.split(x, 1, axis)
        return list(pieces) if keepdims else [piece.squeeze(axis) for piece in pieces]
    return list(torch.split(x, sizes, axis))


@operator("ConcatFromSequence", since=11, pure=False)
def concat_from_sequence(items: list[Tensor], *, axis: int, new_axis: int) -> Tensor:
    """The items behind one another along an axis, or along a new one."""
    return torch.stack(items, axis) if new_axis else torch.cat(items, axis)


@operator("SequenceMap", since=17)
def sequence_map(
    items: list[Tensor],
    *others: Any,
    body: SubgraphProgram,
    captured: Mapping[str, Any],
    context: ConversionContext,
) -> tuple[list[Any], ...]:
    """The body applied to each item; other sequences give one item each time, tensors always the same."""
    rows: list[Sequence[Any]] = []
    for i, item in enumerate(items):
        given = [other[i] if isinstance(other, list) else other for other in others]
        rows.append(body([item, *given], captured, context))
    return tuple([row[i] for row in rows] for i in range(len(body.program.results)))


@operator("Optional", since=15, pure=False)
def optional(x: Any = None, *, type: Any = None) -> Any:  # noqa: A002
    """A value that may be missing: the value, or None."""
    return x


@operator("OptionalGetElement", since=15, pure=False)
def optional_get_element(x: Any) -> Any:
    """The value that is there."""
    return x


@operator("OptionalHasElement", since=15, pure=False, differentiable=False)
def optional_has_element(x: Any = None, *, context: ConversionContext) -> Tensor:
    """Whether there is a value."""
    return torch.tensor(x is not None, device=context.device)

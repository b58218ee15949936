"""Shape arithmetic on Python integers.

What exporters compute from `Shape` (take a dimension, multiply, concatenate) runs on Python numbers: nothing
has to be fetched from a GPU, and torch.compile can follow the sizes. A host value is an int, or a list of
ints where the graph has a vector.
"""

from __future__ import annotations

import operator as python
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx
import torch

from redtest_onnx.bridge.registry import DEFAULT_DOMAIN, ConversionContext, normalised, operator

Number: TypeAlias = int | bool
PythonValue: TypeAlias = Number | list[Any]
RankRule = Callable[[list[int]], int | None]


@dataclass(frozen=True)
class PythonOperator:
    """An operator on Python integers.

    Attributes:
        compute: takes inputs and attributes as a kernel does.
        rank: rank of the result (0 or 1) for the ranks of the inputs; None where it is no host value.
    """

    compute: Callable[..., PythonValue]
    rank: RankRule


def broadcast(function: Callable[..., Number], *operands: PythonValue) -> PythonValue:
    """Apply a function of numbers to numbers and lists, broadcasting numbers and lists of one."""
    sizes = {len(x) for x in operands if isinstance(x, list)}
    if not sizes:
        return function(*operands)
    size = max(sizes) if 0 not in sizes else 0
    columns = [(x if len(x) == size else x * size) if isinstance(x, list) else [x] * size for x in operands]
    return [function(*row) for row in zip(*columns, strict=True)]


def divide(a: int, b: int) -> int:
    """Integer division that rounds towards zero, as ONNX does."""
    quotient = abs(a) // abs(b)
    return quotient if (a >= 0) == (b > 0) else -quotient


def _add(a: PythonValue, b: PythonValue) -> PythonValue:
    return broadcast(python.add, a, b)


def _sub(a: PythonValue, b: PythonValue) -> PythonValue:
    return broadcast(python.sub, a, b)


def _mul(a: PythonValue, b: PythonValue) -> PythonValue:
    return broadcast(python.mul, a, b)


def _div(a: PythonValue, b: PythonValue) -> PythonValue:
    return broadcast(divide, a, b)


def _max(*xs: PythonValue) -> PythonValue:
    return broadcast(max, *xs) if len(xs) > 1 else xs[0]


def _min(*xs: PythonValue) -> PythonValue:
    return broadcast(min, *xs) if len(xs) > 1 else xs[0]


def _equal(a: PythonValue, b: PythonValue) -> PythonValue:
    return broadcast(python.eq, a, b)


def _choose(condition: bool, a: Number, b: Number) -> Number:
    return a if condition else b


def _where(condition: PythonValue, a: PythonValue, b: PythonValue) -> PythonValue:
    return broadcast(_choose, condition, a, b)


def _identity(x: PythonValue) -> PythonValue:
    return x


def _range(start: int, limit: int, delta: int) -> PythonValue:
    return list(range(start, limit, delta))


def _gather(x: list[Any], index: PythonValue, *, axis: int = 0) -> PythonValue:
    return [x[i] for i in index] if isinstance(index, list) else x[index]


def _concat(*xs: list[Any], axis: int = 0) -> PythonValue:
    return [item for x in xs for item in x]


def _unsqueeze(x: Number, _axes: PythonValue = 0, *, axes: tuple[int, ...] = ()) -> PythonValue:
    return [x]


def _squeeze(x: list[Any], _axes: PythonValue = 0, *, axes: tuple[int, ...] = ()) -> PythonValue:
    (only,) = x
    return only  # type: ignore[no-any-return]


def _slice(
    x: list[Any],
    start: list[int],
    end: list[int],
    axes: list[int] | None = None,
    step: list[int] | None = None,
) -> PythonValue:
    first, last, stride = start[0], end[0], step[0] if step else 1
    if stride < 0 and last < -len(x):
        return x[first::stride]
    return x[first:last:stride]


def _slice_1(
    x: list[Any], *, starts: tuple[int, ...], ends: tuple[int, ...], axes: tuple[int, ...] = ()
) -> PythonValue:
    return x[starts[0] : ends[0]]


def _cast(x: PythonValue, *, to: int) -> PythonValue:
    return x


@operator("Shape", differentiable=False)
def shape(x: torch.Tensor, *, start: int = 0, end: int | None = None) -> PythonValue:
    """Sizes of a tensor, or of some of its axes."""
    return list(x.shape[start:end])


@operator("Size", differentiable=False)
def size(x: torch.Tensor) -> PythonValue:
    """Number of elements."""
    return x.numel()


def _scalar(ranks: list[int]) -> int | None:
    return 0


def _widest(ranks: list[int]) -> int | None:
    return max(ranks)


def _vector(ranks: list[int]) -> int | None:
    return 1


def _indexed(ranks: list[int]) -> int | None:
    return ranks[1] if ranks[0] == 1 else None


def _raised(ranks: list[int]) -> int | None:
    return 1 if ranks[0] == 0 else None


def _lowered(ranks: list[int]) -> int | None:
    return 0 if ranks[0] == 1 else None


_ARITHMETIC: dict[str, PythonOperator] = {
    "Add": PythonOperator(_add, _widest),
    "Sub": PythonOperator(_sub, _widest),
    "Mul": PythonOperator(_mul, _widest),
    "Div": PythonOperator(_div, _widest),
    "Max": PythonOperator(_max, _widest),
    "Min": PythonOperator(_min, _widest),
    "Equal": PythonOperator(_equal, _widest),
    "Where": PythonOperator(_where, _widest),
    "Identity": PythonOperator(_identity, _widest),
    "Gather": PythonOperator(_gather, _indexed),
    "Concat": PythonOperator(_concat, _vector),
    "Unsqueeze": PythonOperator(_unsqueeze, _raised),
    "Squeeze": PythonOperator(_squeeze, _lowered),
    "Slice": PythonOperator(_slice, _vector),
    "Range": PythonOperator(_range, _vector),
}
_SLICE_BY_ATTRIBUTE = PythonOperator(_slice_1, _vector)
_CAST = PythonOperator(_cast, _widest)
_SIZES: dict[str, PythonOperator] = {
    "Shape": PythonOperator(shape, _vector),
    "Size": PythonOperator(size, _scalar),
}


def size_operator(node: onnx.NodeProto) -> PythonOperator | None:
    """How to compute a host value from a tensor: its sizes; None for other operators."""
    return _SIZES.get(node.op_type) if normalised(node.domain) == DEFAULT_DOMAIN else None


def host_operator(node: onnx.NodeProto, version: int) -> PythonOperator | None:
    """How to compute a node on host values; None where that is not possible."""
    if normalised(node.domain) != DEFAULT_DOMAIN:
        return None
    if node.op_type == "Slice" and version < 10:
        return _SLICE_BY_ATTRIBUTE
    if node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.INT64:
        return _CAST
    return _ARITHMETIC.get(node.op_type)


def as_tensor(value: PythonValue, *, context: ConversionContext) -> torch.Tensor:
    """The host value as ONNX types it: int64 or bool, on the device of the run."""
    dtype = torch.int64 if value == [] else None
    return torch.tensor(value, dtype=dtype, device=context.device)


def as_numbers(value: torch.Tensor) -> PythonValue:
    """The values of a tensor as Python numbers; waits for its device."""
    numbers: PythonValue = value.tolist()
    return numbers

"""Concrete sizes for a model's inputs: what to feed where the file leaves dimensions open."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Dim, Model, TensorSpec, element_bits
from redtest_onnx.graph.shapes import Shape

# Sizes for open dimensions. Detectors halve images five times, so theirs are multiples of 32.
_IMAGE, _SEQUENCE, _AUDIO = 64, 16, 512
_LARGEST_BATCH = 1 << 16
_LARGEST_INPUT = 1 << 32  # bytes for one run; what asks for more is a mistake

_STATE = re.compile(r"state|past|cache|hidden|memory|(^|[._])[hc]_?\d*$", re.IGNORECASE)


@dataclass(frozen=True)
class InputPlan:
    """How one input is fed.

    Attributes:
        name: of the input.
        dtype: ONNX element type.
        shape: concrete sizes, with the batch at `batch_axis`.
        batch_axis: the axis of the samples; None for an input that all samples share.
        open_axes: axes whose size the file leaves open, the batch axis aside.
    """

    name: str
    dtype: int
    shape: Shape
    batch_axis: int | None
    open_axes: tuple[int, ...]


def plan_inputs(model: Model, batch: int, sizes: Mapping[str, Shape] | None = None) -> tuple[InputPlan, ...]:
    """Sizes for all inputs of a run with `batch` samples.

    Equal symbols get equal sizes. A model with a fixed batch size keeps it.

    Args:
        model: the model.
        batch: number of samples.
        sizes: sizes of inputs given by the user, without exception.

    Raises:
        InputError: an input declares no rank.
    """
    symbols: dict[str, int] = {}
    fixed = fixed_batch(model)
    return tuple(
        _plan(model, spec, fixed or batch, symbols, (sizes or {}).get(spec.name)) for spec in model.inputs
    )


def fixed_batch(model: Model) -> int | None:
    """The batch size the file fixes: the first dimension of its first input; None if open.

    Vectors and states say nothing about it where there are other inputs.

    Raises:
        InputError: a batch size that can only be a mistake.
    """
    telling = [spec for spec in model.inputs if len(spec.shape or ()) > 1 and not is_state(spec)]
    for spec in telling or model.inputs:
        if spec.shape:
            first = spec.shape[0]
            if isinstance(first, int) and first > _LARGEST_BATCH:
                raise InputError(
                    f"input {spec.name!r} fixes a batch of {first} samples",
                    where=model.label,
                    hint="check its declared dimensions, or export it with an open batch",
                )
            return first if isinstance(first, int) and first > 0 else None
    return None


def is_state(spec: TensorSpec) -> bool:
    """Whether an input carries what an earlier run left: a recurrent state or a cache."""
    return bool(_STATE.search(spec.name)) and "hidden_states" not in spec.name


def _plan(
    model: Model, spec: TensorSpec, batch: int, symbols: dict[str, int], given: Shape | None
) -> InputPlan:
    if spec.shape is None:
        raise InputError(
            f"input {spec.name!r} declares no shape",
            where=model.label,
            hint="export the model with the rank of its inputs",
        )
    axis = _batch_axis(spec)
    open_axes = tuple(k for k, dim in enumerate(spec.shape) if not isinstance(dim, int) and k != axis)
    shape = given or tuple(
        batch if k == axis else _size(spec, k, dim, symbols) for k, dim in enumerate(spec.shape)
    )
    size = prod(shape) * element_bits(spec.dtype) // 8
    if size > _LARGEST_INPUT or any(dim < 0 for dim in shape):
        raise InputError(
            f"input {spec.name!r} of sizes {list(shape)} would take {size / 2**30:.1f} GiB",
            where=model.label,
            hint="check its declared dimensions, or give smaller ones with --input-shape",
        )
    return InputPlan(spec.name, spec.dtype, shape, axis, open_axes)


def _batch_axis(spec: TensorSpec) -> int | None:
    if not spec.shape:
        return None
    if is_state(spec):
        # Recurrent states are [layers, batch, width]: layers are a number, the batch is open.
        for k, dim in enumerate(spec.shape):
            if not isinstance(dim, int):
                return k
    return 0


def _size(spec: TensorSpec, axis: int, dim: Dim, symbols: dict[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    rank = len(spec.shape or ())
    if is_state(spec):
        size = 0 if "past" in spec.name.lower() or "cache" in spec.name.lower() else 1
    elif rank >= 4:
        size = _IMAGE
    elif rank == 2 and spec.numpy_dtype.kind == "f":
        size = _AUDIO  # [batch, samples] of a signal; a feature vector would have a fixed width
    else:
        size = _SEQUENCE
    return symbols.setdefault(dim, size) if dim else size

"""Concrete sizes for a model's inputs: what to feed where the file leaves dimensions open."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from redtest_onnx.errors import InputError
from redtest_onnx.graph.head_sizes import cache_sizes
from redtest_onnx.graph.model import Dim, Model, TensorSpec, element_bits
from redtest_onnx.graph.sequence import recurrent_inputs
from redtest_onnx.graph.shapes import Shape

# Sizes for open dimensions. Detectors halve images five times, so theirs are multiples of 32.
_IMAGE, _SEQUENCE, _AUDIO = 64, 16, 512
_LARGEST_BATCH = 1 << 16
_LARGEST_INPUT = 1 << 32  # bytes for one run; what asks for more is a mistake

_STATE = re.compile(r"state|past|cache|hidden|memory|(^|[._])[hc]_?\d*$", re.IGNORECASE)
_CROSS = re.compile(r"encoder|cross", re.IGNORECASE)
_CACHE = re.compile(r"past|cache", re.IGNORECASE)


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
    fixed, axes, states = fixed_batch(model), batch_axes(model), state_inputs(model)
    by_graph = cache_sizes(model)
    return tuple(
        _plan(
            model,
            spec,
            axes[spec.name],
            fixed or batch,
            _Open(symbols, spec.name in states, by_graph.get(spec.name, {})),
            (sizes or {}).get(spec.name),
        )
        for spec in model.inputs
    )


def fixed_batch(model: Model) -> int | None:
    """The batch size the file fixes, by the first input that has samples; None if open.

    Vectors and states say nothing about it where there are other inputs.

    Raises:
        InputError: a batch size that can only be a mistake.
    """
    states, recurrent = state_inputs(model), recurrent_inputs(model.graph)
    telling = [spec for spec in model.inputs if len(spec.shape or ()) > 1 and spec.name not in states]
    for spec in telling or model.inputs:
        if spec.shape:
            size = spec.shape[recurrent.get(spec.name, 0)]
            if isinstance(size, int) and size > _LARGEST_BATCH:
                raise InputError(
                    f"input {spec.name!r} fixes a batch of {size} samples",
                    where=model.label,
                    hint="check its declared dimensions, or export it with an open batch",
                )
            return size if isinstance(size, int) and size > 0 else None
    return None


def batch_axes(model: Model) -> dict[str, int | None]:
    """The axis of the samples of each input; None for an input that all samples share.

    Shared are scalars, and what keeps a size of its own where the batch is another or open.
    """
    fixed, states, recurrent = fixed_batch(model), state_inputs(model), recurrent_inputs(model.graph)
    axes: dict[str, int | None] = {}
    for spec in model.inputs:
        axis = _state_axis(spec) if spec.name in states else recurrent.get(spec.name, 0)
        size = spec.shape[axis] if spec.shape else 0
        axes[spec.name] = axis if not isinstance(size, int) or size == fixed else None
    return axes


def state_inputs(model: Model) -> frozenset[str]:
    """Inputs that carry what an earlier run left: a recurrent state or a cache.

    A model gives its next state back; what is merely called a state, as in control, is an input like others.
    """
    found = {
        spec.name
        for spec in model.inputs
        if _STATE.search(spec.name)
        and "hidden_states" not in spec.name
        and (_CACHE.search(spec.name) or any(_alike(spec, output) for output in model.outputs))
    }
    return frozenset(found) if len(found) < len(model.inputs) else frozenset()


def _alike(state: TensorSpec, output: TensorSpec) -> bool:
    if state.shape is None or output.shape is None:
        return state.dtype == output.dtype
    pairs = zip(state.shape, output.shape, strict=False)
    same = all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))
    return state.dtype == output.dtype and len(state.shape) == len(output.shape) and same


def _state_axis(spec: TensorSpec) -> int:
    """Recurrent states are [layers, batch, width]: layers are a number, the batch is open."""
    shape = spec.shape or ()
    opened = (k for k, dim in enumerate(shape) if not isinstance(dim, int))
    return next(opened, 1 if len(shape) == 3 else 0)


@dataclass(frozen=True)
class _Open:
    """What decides on open dimensions: sizes of symbols seen before, whether the input is a state, and sizes
    of axes that attention operators fix."""

    symbols: dict[str, int]
    state: bool
    fixed: Mapping[int, int]


def _plan(
    model: Model, spec: TensorSpec, axis: int | None, batch: int, opened: _Open, given: Shape | None
) -> InputPlan:
    if spec.shape is None:
        raise InputError(
            f"input {spec.name!r} declares no shape",
            where=model.label,
            hint="export the model with the rank of its inputs",
        )
    open_axes = tuple(k for k, dim in enumerate(spec.shape) if not isinstance(dim, int) and k != axis)
    shape = given or tuple(
        batch if k == axis else opened.fixed.get(k) or _size(spec, dim, opened)
        for k, dim in enumerate(spec.shape)
    )
    size = prod(shape) * element_bits(spec.dtype) // 8
    if size > _LARGEST_INPUT or any(dim < 0 for dim in shape):
        raise InputError(
            f"input {spec.name!r} of sizes {list(shape)} would take {size / 2**30:.1f} GiB",
            where=model.label,
            hint="check its declared dimensions, or give smaller ones with @shapes",
        )
    return InputPlan(spec.name, spec.dtype, shape, axis, open_axes)


def _size(spec: TensorSpec, dim: Dim, opened: _Open) -> int:
    if isinstance(dim, int):
        return dim
    rank = len(spec.shape or ())
    if opened.state:
        # What an encoder left is never empty; what a decoder said so far is, at first.
        size = _SEQUENCE if _CROSS.search(spec.name) else 0 if _CACHE.search(spec.name) else 1
    elif rank >= 4:
        size = _IMAGE
    elif rank == 2 and spec.numpy_dtype.kind == "f":
        size = _AUDIO  # [batch, samples] of a signal; a feature vector would have a fixed width
    else:
        size = _SEQUENCE
    return opened.symbols.setdefault(dim, size) if dim else size

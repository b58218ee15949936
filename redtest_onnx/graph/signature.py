"""Concrete sizes for a model's inputs: what to feed where the file leaves dimensions open."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from redtest_onnx.errors import InputError
from redtest_onnx.graph.axes import Axis, axes_of
from redtest_onnx.graph.denotations import denoted_axes
from redtest_onnx.graph.head_sizes import cache_sizes
from redtest_onnx.graph.image_size import declared_image_size
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.model import Model, TensorSpec, element_bits
from redtest_onnx.graph.shapes import Shape

_LARGEST_BATCH = 1 << 16
_LARGEST_INPUT = 1 << 32  # bytes for one run; what asks for more is a mistake

_STATE = re.compile(r"state|past|cache|hidden|memory|(^|[._])[hc]_?\d*$", re.IGNORECASE)
_CROSS = re.compile(r"encoder|cross", re.IGNORECASE)
_CACHE = re.compile(r"past|cache", re.IGNORECASE)
_KEYS = re.compile(r"key|value|(^|[._])[kv]([._]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Guess:
    """Sizes for open dimensions that nothing tells.

    Attributes:
        image: height and width; detectors halve images five times, so theirs are multiples of 32.
        sequence: steps, tokens, or nodes of a graph.
        signal: values of a sound.
    """

    image: int = 64
    sequence: int = 16
    signal: int = 512


GUESSES = (
    Guess(),
    Guess(128, 32, 1024),
    Guess(224, 64, 4000),
    Guess(256, 128, 8000),
    Guess(320, 256, 16000),
    Guess(640, 512, 32000),
    Guess(32, 8, 256),
    Guess(299, 10, 400),
)
"""Sizes in the order in which they are tried until the model runs."""


@dataclass(frozen=True)
class InputPlan:
    """How one input is fed.

    Attributes:
        name: of the input.
        dtype: ONNX element type.
        shape: concrete sizes, with the batch at `batch_axis`.
        batch_axis: the axis of the samples; None for an input that all samples share, and for all inputs of
            a model that takes one sample a run.
        open_axes: axes whose size the file leaves open, the batch axis aside.
        chosen_axes: those of them whose size is a guess: neither weights, nor metadata, nor the user tell it.
    """

    name: str
    dtype: int
    shape: Shape
    batch_axis: int | None
    open_axes: tuple[int, ...]
    chosen_axes: tuple[int, ...] = ()


def plan_inputs(model: Model, batch: int, guess: Guess = GUESSES[0]) -> tuple[InputPlan, ...]:
    """Sizes for all inputs of a run with `batch` samples.

    Axes that operators or symbols make equally long get equal sizes; what meets a stored weight gets its
    size. A model with a fixed batch size keeps it.

    Args:
        model: the model, with the sizes that the user chose.
        batch: number of samples.
        guess: sizes for what nothing tells.

    Raises:
        InputError: an input declares no rank, or would take gigabytes.
    """
    chooser = _SizeChooser(model, fixed_batch(model) or batch, guess)
    return tuple(chooser.plan(spec) for spec in model.inputs)


def fixed_batch(model: Model) -> int | None:
    """The batch size the file fixes, by the first input that has samples; None if open.

    Vectors and states say nothing about it where there are other inputs. A model none of whose inputs has an
    axis of samples, such as one for graphs or for one vector, takes one sample a run: 1.

    Raises:
        InputError: a batch size that can only be a mistake.
    """
    axes = sample_axes(model)
    if _no_samples(model, axes):
        return 1
    states = state_inputs(model)
    telling = [spec for spec in model.inputs if len(spec.shape or ()) > 1 and spec.name not in states]
    counted = [spec for spec in telling or model.inputs if spec.shape and axes.get(spec.name) is not None]
    if not counted:
        return None
    spec = counted[0]
    axis = axes[spec.name]
    assert axis is not None
    size = axes_of(model).inputs[spec.name][axis].size
    if size is not None and size > _LARGEST_BATCH:
        raise InputError(
            f"input {spec.name!r} fixes a batch of {size} samples",
            where=model.label,
            hint="check its declared dimensions, or export it with an open batch",
        )
    return size


def takes_one_sample(model: Model) -> bool:
    """Whether no input has an axis of samples, so that a run is one sample: graphs, vectors, steps first."""
    return all(axis is None for axis in batch_axes(model).values()) and fixed_batch(model) == 1


def batch_axes(model: Model) -> dict[str, int | None]:
    """The axis of the samples of each input; None for an input that all samples share.

    Shared are scalars, and what keeps a size of its own where the batch is another or open.
    """
    fixed, states, samples = fixed_batch(model), state_inputs(model), sample_axes(model)
    if _no_samples(model, samples):
        return {spec.name: None for spec in model.inputs}
    axes: dict[str, int | None] = {}
    for spec in model.inputs:
        axis = _state_axis(spec) if spec.name in states else samples[spec.name]
        if axis is None or not spec.shape:
            axes[spec.name] = None
            continue
        size = axes_of(model).inputs[spec.name][axis].size
        axes[spec.name] = axis if size is None or size == fixed else None
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


def cross_caches(model: Model) -> frozenset[str]:
    """Caches of what an encoder gave, which the cross-attention of a decoder reads: not empty, never changed.

    They stand beside those of what the decoder said; an encoder that streams has its own state only.
    """
    caches = {name for name in state_inputs(model) if _CACHE.search(name)}
    cross = {name for name in caches if _CROSS.search(name) and _KEYS.search(name)}
    return frozenset(cross) if caches - cross else frozenset()


def sample_axes(model: Model) -> dict[str, int | None]:
    """Where each input has its samples, states aside: in front, or where recurrent operators have them.

    What the file denotes is believed.
    A first axis is none of samples where operators move along it (steps, positions), where another input's
    values point to its rows, where the same symbol stands on another axis, or where it has a size and a
    linear operator sums over it: the features of one vector, the channels of one image.
    """
    states = state_inputs(model)
    known = {name: axes for name, axes in axes_of(model).inputs.items() if name not in states}
    found: dict[str, int | None] = {}
    for name, axes in known.items():
        found[name] = next((k for k, axis in enumerate(axes) if _holds_samples(axis)), 0) if axes else None
    elsewhere = {
        axis.root
        for name, axes in known.items()
        for k, axis in enumerate(axes)
        if k != found[name] and axis.size is None and not _holds_samples(axis)
    }
    for name, axes in known.items():
        k = found[name]
        if k is None or not axes:
            continue
        axis = axes[k]
        moved = axis.uses & {"steps", "positions", "indexed"}
        if moved or _sums_features(axis) or (axis.size is None and axis.root in elsewhere):
            found[name] = None
    if any(axis is None and len(known[name]) > 1 for name, axis in found.items()):
        # Where one input is a graph's nodes or steps of one sample, a fixed [2, edges] is none of samples.
        for name, axes in known.items():
            k = found[name]
            if k is not None and axes[k].size is not None and not _holds_samples(axes[k]):
                found[name] = None
    found |= {name: axis for name, axis in denoted_axes(model).items() if name in found}
    return {spec.name: found.get(spec.name, 0) for spec in model.inputs}


def _holds_samples(axis: Axis) -> bool:
    return "samples" in axis.uses and not axis.uses & {"steps", "positions"}


def _sums_features(axis: Axis) -> bool:
    """Whether a linear operator sums over an axis of features; over one of size 1 it only multiplies."""
    return "contracted" in axis.uses and "samples" not in axis.uses and (axis.size or 1) > 1


def _no_samples(model: Model, axes: dict[str, int | None]) -> bool:
    """Whether a run is one sample: none of the inputs but scalars and states has an axis of samples."""
    states = state_inputs(model)
    telling = [spec.name for spec in model.inputs if spec.shape != () and spec.name not in states]
    return bool(telling) and all(axes[name] is None for name in telling)


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


def _only_counted(model: Model, name: str) -> bool:
    """Whether nothing is read of an input but its size, such as a vector that counts the graphs of a run."""
    index = index_of(model)
    readers = [index.nodes[i] for i in index.readers.get(name, ())]
    return bool(readers) and all(node.op_type in ("Shape", "Size") for node in readers)


class _SizeChooser:
    """Sizes of the axes of one model's inputs, equal ones chosen once.

    Args:
        model: the model.
        batch: number of samples.
        guess: sizes for what nothing tells.
    """

    def __init__(self, model: Model, batch: int, guess: Guess) -> None:
        self._model, self._batch, self._guess = model, batch, guess
        self._axes = batch_axes(model)
        self._states = state_inputs(model)
        self._image = declared_image_size(model)
        self._by_graph = cache_sizes(model)
        self._chosen: dict[Axis, tuple[int, bool]] = {}
        for name, sizes in model.sizes.items():
            for k, (axis, size) in enumerate(zip(axes_of(model).inputs[name], sizes, strict=True)):
                if k != self._axes[name] and axis.size is None:
                    self._chosen.setdefault(axis.root, (size, False))

    def plan(self, spec: TensorSpec) -> InputPlan:
        """How one input is fed."""
        if not spec.dtype:
            raise InputError(
                f"input {spec.name!r} is no tensor, but a list, a table or something that may be missing",
                where=self._model.label,
                hint="export the model with tensors as inputs",
            )
        if spec.shape is None:
            raise InputError(
                f"input {spec.name!r} declares no shape",
                where=self._model.label,
                hint="give its sizes with @shapes, or export the model with its rank",
            )
        sample = self._axes[spec.name]
        shape: list[int] = []
        guesses: list[int] = []
        for k, (axis, dim) in enumerate(zip(axes_of(self._model).inputs[spec.name], spec.shape, strict=True)):
            if k == sample:
                shape.append(self._batch)
            elif isinstance(dim, int) and dim > 0:
                shape.append(dim)
            elif axis.size is not None:
                shape.append(axis.size)
            else:
                size, guessed = self._open(spec, k, axis)
                shape.append(size)
                guesses += [k] if guessed else []
        size = prod(shape) * element_bits(spec.dtype) // 8
        if size > _LARGEST_INPUT or any(dim < 0 for dim in shape):
            raise InputError(
                f"input {spec.name!r} of sizes {shape} would take {size / 2**30:.1f} GiB",
                where=self._model.label,
                hint="check its declared dimensions, or give smaller ones with @shapes",
            )
        opened = tuple(k for k, dim in enumerate(spec.shape) if not isinstance(dim, int) and k != sample)
        return InputPlan(spec.name, spec.dtype, tuple(shape), sample, opened, tuple(guesses))

    def _open(self, spec: TensorSpec, k: int, axis: Axis) -> tuple[int, bool]:
        """The size of an axis that nothing fixes, and whether it is a guess."""
        if axis.root not in self._chosen:
            self._chosen[axis.root] = self._size(spec, k, axis)
        return self._chosen[axis.root]

    def _size(self, spec: TensorSpec, k: int, axis: Axis) -> tuple[int, bool]:
        rank = len(spec.shape or ())
        if (told := self._by_graph.get(spec.name, {}).get(k)) is not None:
            return told, False
        if rank == 1 and _only_counted(self._model, spec.name):
            return 1, True  # one graph a run: of several, those that got no nodes would pool over nothing
        if spec.name in self._states:
            # What an encoder left is never empty; what a decoder said so far is, at first.
            if _CROSS.search(spec.name):
                return self._guess.sequence, True
            return (0 if _CACHE.search(spec.name) else 1), False
        if "image" in axis.uses or (rank >= 4 and "steps" not in axis.uses):
            if self._image is not None:
                height, width = self._image
                first = not any(
                    ("image" in other.uses and other.size is None) or (rank >= 4 and other.size is None)
                    for j, other in enumerate(axes_of(self._model).inputs[spec.name][:k])
                    if j != self._axes[spec.name]
                )
                return (height if first else width), False
            return self._guess.image, True
        if rank == 2 and spec.numpy_dtype.kind == "f" and "steps" not in axis.uses:
            lead = self._axes[spec.name] is None and k == 0  # nodes of a graph, rows of a table
            # [batch, samples] of a signal; a feature vector would have a fixed width.
            return (self._guess.sequence if lead else self._guess.signal), True
        return self._guess.sequence, True

"""Synthetic (random) inputs from a model's signature and graph, for a first look without data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.data.affordable import affordable_samples
from redtest_onnx.data.dataset import Chosen, Dataset, Feeds
from redtest_onnx.data.ids import InputValues
from redtest_onnx.graph.axes import Axis, axes_of
from redtest_onnx.graph.masks import find_mask
from redtest_onnx.graph.model import Model, TensorSpec
from redtest_onnx.graph.shapes import Shape
from redtest_onnx.graph.signature import (
    GUESSES,
    Guess,
    InputPlan,
    cross_caches,
    plan_inputs,
    state_inputs,
    takes_one_sample,
)

_MASK = re.compile(r"mask", re.IGNORECASE)
_KIND = re.compile(r"token_type|segment|^batch$", re.IGNORECASE)
_LENGTH = re.compile(r"(^|[_./])(n_?)?(length|lengths|len|lens|seq_?lens?|num_frames|frames)$", re.IGNORECASE)
_POSITIONS = re.compile(r"position_?ids|positions", re.IGNORECASE)
_LARGEST_BYTE, _LARGEST_INTEGER = 256, 2


class Synthetic:
    """Noise, indices within their tables, lengths of whole sequences, ones for masks, zeros for states.

    Caches of cross-attention hold what an encoder gave: noise, since zeros would make the attention nothing.
    A sample depends on the seed and its index only, so that any choice of batches sees the same ones.

    Args:
        model: what the inputs are for.
        seed: of all values.
        count: number of samples there are; by what one costs if None, see `affordable_samples`.
        sizes: sizes of inputs given by the user.
        guess: sizes for what nothing tells.

    Raises:
        InputError: sizes that don't fit the model's inputs.
    """

    synthetic = True
    labelled = False
    source = "synthetic inputs"

    def __init__(
        self,
        model: Model,
        seed: int,
        count: int | None,
        sizes: Mapping[str, Shape],
        guess: Guess = GUESSES[0],
    ) -> None:
        self.model = model.with_sizes(sizes)
        """The model with the sizes that the user chose, as the samples fit it."""
        self.sizes: Mapping[str, Shape] = sizes
        self.settled = False
        """Whether it is known which guesses the model runs on, or that it runs on none."""
        self._seed, self._count, self._guess = seed, count, guess
        self._plans: dict[int, tuple[InputPlan, ...]] = {}

    def __len__(self) -> int:
        if self._count is None:
            self._count = affordable_samples(self.model, {plan.name: plan.shape for plan in self._plan(1)})
        return self._count

    def guessed(self, guess: Guess) -> Synthetic:
        """The same with other sizes where nothing tells them."""
        return Synthetic(self.model, self._seed, self._count, self.sizes, guess)

    def shortened(self, count: int) -> Synthetic:
        """The same with the first samples only."""
        found = Synthetic(self.model, self._seed, min(count, len(self)), self.sizes, self._guess)
        found.settled = self.settled
        return found

    @cached_property
    def _padding_mask(self) -> str | None:
        """The input whose ones mark padding, of which there is none."""
        mask = find_mask(self.model)
        return mask.input if mask is not None and mask.inverted else None

    @cached_property
    def guessed_sizes(self) -> dict[str, Shape]:
        """Sizes for one sample of inputs some of whose sizes are guesses."""
        return {plan.name: plan.shape for plan in self._plan(1) if plan.chosen_axes}

    def inputs(self, indices: Chosen) -> Feeds:
        """Synthetic arrays for the given samples."""
        return {plan.name: self._input(plan, indices) for plan in self._plan(len(indices))}

    def labels(self, indices: Chosen) -> None:
        """Synthetic samples have no labels: always None."""

    def _plan(self, batch: int) -> tuple[InputPlan, ...]:
        if batch not in self._plans:
            self._plans[batch] = plan_inputs(self.model, batch, self._guess)
        return self._plans[batch]

    def _input(self, plan: InputPlan, indices: Chosen) -> npt.NDArray[Any]:
        if plan.batch_axis is None:
            return self._values(plan, plan.shape, int(indices[0]) if self._one_sample else 0)
        shape = tuple(size for k, size in enumerate(plan.shape) if k != plan.batch_axis)
        samples = [self._values(plan, shape, int(k)) for k in indices]
        return np.stack(samples, axis=plan.batch_axis)

    def _values(self, plan: InputPlan, shape: Shape, sample: int) -> npt.NDArray[Any]:
        spec = self._specs[plan.name]
        dtype = spec.numpy_dtype
        rng = np.random.default_rng([self._seed, sample, *plan.name.encode()])
        constant = self._compared[plan.name]
        if constant is not None and (np.prod(plan.shape) == 1 or not self._bounds[plan.name]):
            return np.full(shape, constant, dtype)
        if plan.name == self._padding_mask:
            return np.zeros(shape, dtype)
        if dtype.kind == "b" or _MASK.search(plan.name):
            return np.ones(shape, dtype)
        if plan.name in self._states - self._cross:
            return np.zeros(shape, dtype)
        if dtype.kind in "SUO":
            return np.full(shape, "", dtype=object)
        if dtype.kind in "iuf" and (length := self._lengths[plan.name]) is not None:
            return np.full(shape, length, dtype)
        if dtype.kind in "iu" and np.prod(shape) == 1 and self._graph.is_size(plan.name):
            return np.ones(shape, dtype)
        if self._bounds[plan.name] and (dtype.kind in "iu" or self._whole_numbers(plan.name)):
            return self._rows(plan, shape, rng).astype(dtype)
        if _KIND.search(plan.name) and dtype.kind in "iu":
            return np.zeros(shape, dtype)
        if dtype.kind in "iu":
            most = _LARGEST_BYTE if dtype.itemsize == 1 else _LARGEST_INTEGER
            return rng.integers(0, most, shape).astype(dtype)
        return rng.standard_normal(shape, np.float32).astype(dtype)

    def _rows(self, plan: InputPlan, shape: Shape, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Valid rows of all tables that the values point into, over the whole of the smallest."""
        low, high = np.zeros(shape, np.int64), np.full(shape, np.iinfo(np.int32).max, np.int64)
        for bound in self._bounds[plan.name]:
            rows = self._size_of(bound.rows)
            if not rows:
                continue
            where: tuple[slice, ...] = (...,)  # type: ignore[assignment]
            if bound.columns is not None:
                axis, part = bound.columns
                axis = axis % len(plan.shape)
                inside = axis - (plan.batch_axis is not None and axis > plan.batch_axis)
                if axis != plan.batch_axis:
                    where = (*(slice(None) for _ in range(inside)), part)
            low[where] = np.maximum(low[where], -bound.shift)
            high[where] = np.minimum(high[where], rows - bound.shift)
        unknown = high == np.iinfo(np.int32).max
        high = np.maximum(np.where(unknown, _LARGEST_INTEGER, high), low + 1)
        if _KIND.search(plan.name):
            return low
        if _POSITIONS.search(plan.name) and shape:
            return np.asarray(np.minimum(low + np.arange(shape[-1]), high - 1))
        found: npt.NDArray[np.int64] = rng.integers(low, high)
        # Ids are held against the one that fills up: a sample has others.
        filler = self._compared[plan.name]
        return np.where(found == filler, np.where(found + 1 < high, found + 1, low), found)

    def _size_of(self, axis: Axis) -> int | None:
        """The size of an axis in these samples, also where the file leaves it open."""
        if axis.size is not None:
            return axis.size
        for plan in self._plan(1):
            for own, size in zip(axes_of(self.model).inputs[plan.name], plan.shape, strict=True):
                if own.root is axis.root:
                    return size
        return None

    def _whole_numbers(self, name: str) -> bool:
        """Whether a float input is cast to integers: it holds rows."""
        return any(node.op_type == "Cast" and node.input[0] == name for node in self.model.graph.node)

    @cached_property
    def _specs(self) -> dict[str, TensorSpec]:
        return {spec.name: spec for spec in self.model.inputs}

    @cached_property
    def _one_sample(self) -> bool:
        return takes_one_sample(self.model)

    @cached_property
    def _states(self) -> frozenset[str]:
        return state_inputs(self.model)

    @cached_property
    def _cross(self) -> frozenset[str]:
        return cross_caches(self.model)

    @cached_property
    def _graph(self) -> InputValues:
        return InputValues(self.model)

    @cached_property
    def _compared(self) -> dict[str, float | None]:
        return {name: self._graph.compared(name) for name in self._specs}

    @cached_property
    def _bounds(self) -> dict[str, list[Any]]:
        return {name: self._graph.bounds(name) for name in self._specs}

    @cached_property
    def _lengths(self) -> dict[str, int | None]:
        """Inputs that hold how long a sequence is: all of it."""
        found: dict[str, int | None] = dict.fromkeys(self._specs)
        for name, spec in self._specs.items():
            if len(spec.shape or ()) > 2:
                continue
            if (counted := self._graph.length_of(name)) is not None:
                axis, shift = counted
                size = self._size_of(axis)
                found[name] = None if size is None else size - shift
            elif spec.numpy_dtype.kind in "iu" and _LENGTH.search(name):
                found[name] = self._longest()
        return found

    def _longest(self) -> int | None:
        """Steps of the sequences: the first open axis, of samples none, of the inputs that have one."""
        for plan in self._plan(1):
            opened = [k for k in plan.open_axes if plan.name not in self._states]
            if len(plan.shape) > 1 and opened:
                return plan.shape[opened[0]]
        found = [plan.shape[1] for plan in self._plan(1) if len(plan.shape) > 1]
        return found[0] if found else None


def guessed_values(model: Model) -> tuple[str, ...]:
    """Inputs whose synthetic values are a guess: rows of other inputs, as edges of graphs are, and integers
    of which nothing tells what they mean."""
    graph, states = InputValues(model), state_inputs(model)

    def guessed(spec: TensorSpec) -> bool:
        if bounds := graph.bounds(spec.name):
            return any(bound.rows.size is None for bound in bounds)
        numbers = spec.numpy_dtype.kind in "iu" and spec.numpy_dtype.itemsize > 1
        named = any(words.search(spec.name) for words in (_MASK, _KIND, _LENGTH, _POSITIONS))
        told = named or spec.name in states or graph.is_size(spec.name)
        told = told or graph.compared(spec.name) is not None or graph.length_of(spec.name) is not None
        return numbers and not told and len(spec.shape or ()) <= 2

    return tuple(spec.name for spec in model.inputs if guessed(spec))


def as_many(one: Dataset, two: Dataset) -> tuple[Dataset, Dataset]:
    """Samples of two models that are to be compared: of synthetic ones as many as the larger model gets."""
    if not (isinstance(one, Synthetic) and isinstance(two, Synthetic)) or len(one) == len(two):
        return one, two
    count = min(len(one), len(two))
    return one.shortened(count), two.shortened(count)

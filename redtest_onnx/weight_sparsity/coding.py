"""From stored numbers to the real values they stand for: plain floats, scaled integers, packed blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.arrays import Numbers
from redtest_onnx.graph.model import Model


class Coding(Protocol):
    """How a tensor's numbers become real values, and which number stands for zero."""

    @property
    def quantised(self) -> bool:
        """Whether the numbers are not the values themselves."""

    def decode(self, model: Model, tensor: onnx.TensorProto) -> Numbers:
        """The real values, in the shape that layouts speak of."""

    def cleared(self, model: Model, tensor: onnx.TensorProto, keep: Numbers) -> Numbers:
        """The stored numbers with those for exactly 0 where `keep` is False."""


@dataclass(frozen=True)
class Plain:
    """Floats of any width, stored as they are."""

    quantised = False

    def decode(self, model: Model, tensor: onnx.TensorProto) -> Numbers:
        """The values."""
        return model.value(tensor)

    def cleared(self, model: Model, tensor: onnx.TensorProto, keep: Numbers) -> Numbers:
        """Zeros of the same type, never negative ones."""
        values = model.value(tensor)
        return np.where(keep, values, np.zeros((), values.dtype))


@dataclass(frozen=True)
class Affine:
    """(stored - zero) * scale.

    Attributes:
        scale: one factor, one per index of `axis`, one per block of `axis`, or [directions, outputs] factors
            of [directions, inputs, outputs] numbers.
        zero: the number that stands for 0, likewise; 0 if absent.
        axis: see `scale`.
        block: length of a block; 0 without blocks.
    """

    scale: onnx.TensorProto
    zero: onnx.TensorProto | None
    axis: int
    block: int = 0

    quantised = True

    def decode(self, model: Model, tensor: onnx.TensorProto) -> Numbers:
        """The real values in the scale's type, float32 for narrower ones."""
        stored = model.value(tensor)
        scale = model.value(self.scale)
        wide = np.float64 if scale.dtype == np.float64 else np.float32
        real: npt.NDArray[np.floating[Any]] = stored.astype(wide)
        if self.zero is not None:
            real = real - self._spread(model.value(self.zero).astype(wide), stored.shape)
        return real * self._spread(scale.astype(wide), stored.shape)

    def cleared(self, model: Model, tensor: onnx.TensorProto, keep: Numbers) -> Numbers:
        """The zero point where nothing is kept."""
        stored = model.value(tensor)
        zero = np.zeros((), stored.dtype) if self.zero is None else model.value(self.zero)
        return np.where(keep, stored, self._spread(zero, stored.shape)).astype(stored.dtype)

    def _spread(self, values: Numbers, shape: Sequence[int]) -> Numbers:
        """Scales or zero points so that they broadcast against the tensor."""
        if values.size == 1:
            return values.reshape(())
        if values.ndim == 2 and len(shape) == 3 and values.shape == (shape[0], shape[2]) and not self.block:
            return values[:, np.newaxis, :]
        axis = self.axis % len(shape)
        if self.block:
            return np.repeat(values, self.block, axis=axis).take(range(shape[axis]), axis)
        return values.reshape([-1 if k == axis else 1 for k in range(len(shape))])


@dataclass(frozen=True)
class PackedBlocks:
    """Weights of MatMulNBits: numbers of a few bits in blocks along the inputs, [outputs, blocks, bytes].

    Attributes:
        scale: [outputs * blocks] factors.
        zero: [outputs * ceil(blocks * bits / 8)] packed, or as many floats as factors; if absent,
            half the range.
        inputs: length of a row.
        outputs: number of rows.
        bits: width of a number.
        block: numbers in a block.
    """

    scale: onnx.TensorProto
    zero: onnx.TensorProto | None
    inputs: int
    outputs: int
    bits: int
    block: int

    quantised = True

    def decode(self, model: Model, tensor: onnx.TensorProto) -> Numbers:
        """[outputs, inputs] float32 values."""
        numbers = self._unpacked(model.value(tensor)).reshape(self.outputs, -1, self.block)
        blocks = numbers.shape[1]
        scale = model.value(self.scale).astype(np.float32).reshape(self.outputs, blocks, 1)
        real = (numbers - self._zeros(model, blocks)) * scale
        return real.reshape(self.outputs, -1)[:, : self.inputs]

    def cleared(self, model: Model, tensor: onnx.TensorProto, keep: Numbers) -> Numbers:
        """Packed numbers are not changed: use `weights.prunable` first."""
        raise NotImplementedError("numbers of a few bits are not pruned")

    def _zeros(self, model: Model, blocks: int) -> Numbers:
        if self.zero is None:
            return np.full((1, 1, 1), 1 << (self.bits - 1), np.float32)
        stored = model.value(self.zero)
        if stored.dtype != np.uint8:
            return stored.astype(np.float32).reshape(self.outputs, blocks, 1)
        return self._unpacked(stored.reshape(self.outputs, -1))[:, :blocks, None]

    def _unpacked(self, packed: Numbers) -> Numbers:
        """[outputs, numbers] float32 from bytes, lowest bits first."""
        rows = packed.reshape(self.outputs, -1)
        shifts = np.arange(0, 8, self.bits, dtype=np.uint8)
        numbers = (rows[:, :, None] >> shifts) & np.uint8((1 << self.bits) - 1)
        return numbers.reshape(self.outputs, -1).astype(np.float32)

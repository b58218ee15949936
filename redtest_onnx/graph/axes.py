"""Where the axes of inner tensors come from: which axes of the inputs are equally long, and what weights fix.

Every axis of every tensor is an `Axis`. Operators that need two axes to be equally long join them, so that an
open axis of an input that meets a stored weight takes the weight's size, and a symbol that two inputs share
without saying so is found. Axes also learn what operators do along them: hold samples, steps or positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.model import Model, is_external, tensor_elements

Use = Literal["samples", "steps", "positions", "image", "indexed", "contracted"]
"""What an axis is for: recurrent and convolutional samples, steps of a recurrent operator, positions of a
convolution (of two axes or more: an image), rows that another input's values point to, what a linear operator
sums over."""

# What leaves values as they are, or shifts them: indices stay indices.
_VALUES_KEPT = frozenset(
    {"Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Slice", "Split"}
    | {"Gather", "Add", "Sub", "Expand", "Where", "Concat"}
)
_LARGEST_VALUE = 64  # elements of constants that hold axes or sizes


class Axis:
    """One axis: its size as far as known, and all axes found to be as long.

    Args:
        size: the size; None where it is open.
    """

    def __init__(self, size: int | None = None) -> None:
        self._parent: Axis | None = None
        self._size = size
        self._uses: set[Use] = set()

    @property
    def root(self) -> Axis:
        """The axis that stands for all that are as long as this one."""
        axis = self
        while axis._parent is not None:
            axis = axis._parent
        return axis

    @property
    def size(self) -> int | None:
        """The size that the file or a weight fixes; None where it is open."""
        return self.root._size

    @property
    def uses(self) -> frozenset[Use]:
        """What operators do along it."""
        return frozenset(self.root._uses)

    def use(self, use: Use) -> None:
        """Note what an operator does along it."""
        self.root._uses.add(use)

    def join(self, other: Axis) -> None:
        """Note that another axis is as long; sizes that are known stay."""
        a, b = self.root, other.root
        if a is b:
            return
        if a._size is not None and b._size is not None:
            return  # two constants: equal, or a broadcast
        if a._size is not None or b._size is not None:
            # A constant is not the same axis: it only tells the size.
            known = a._size if a._size is not None else b._size
            a._size = b._size = known
            return
        b._parent = a
        a._uses |= b._uses


Axes: TypeAlias = tuple[Axis, ...]
Sizes: TypeAlias = tuple["Axis | int | None", ...]
"""Values of a small tensor of sizes: those of axes, constants, or unknown."""


class AxisFlow:
    """The axes of a main graph's tensors.

    Args:
        model: the model; its weights are looked at by their sizes only.

    Attributes:
        inputs: axes of each input with a declared rank.
        tensors: axes of each tensor whose rank is known; inputs and stored values included.
        sizes: values of tensors that hold sizes.
        fed: inputs, and what only picks or shifts their values.
        ranges: for the result of a Range from 0 the axis it counts along, by tensor.
        stored: names of stored values.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.tensors: dict[str, Axes] = {}
        self.sizes: dict[str, Sizes] = {}
        self.ranges: dict[str, Axis] = {}
        self.stored: set[str] = set()
        symbols: dict[str, Axis] = {}
        for tensor in model.initializers.values():
            self._store(tensor.name, tensor)
        for spec in model.inputs:
            if spec.shape is not None:
                self.tensors[spec.name] = tuple(
                    symbols.setdefault(dim, Axis())
                    if isinstance(dim, str)
                    else Axis(dim if dim is not None and dim > 0 else None)
                    for dim in spec.shape
                )
        self.fed: set[str] = {spec.name for spec in model.inputs}
        self.inputs: dict[str, Axes] = {
            spec.name: self.tensors[spec.name] for spec in model.inputs if spec.name in self.tensors
        }
        from redtest_onnx.graph.axis_rules import RULES

        for node in model.graph.node:
            if ops.qualified(node) in _VALUES_KEPT and not self.fed.isdisjoint(node.input):
                self.fed.update(name for name in node.output if name)
            rule = RULES.get(ops.qualified(node))
            if rule is None or not node.output:
                continue
            try:
                rule(self, node)
            except (IndexError, ValueError, TypeError, KeyError, AssertionError):
                continue  # an operator used in a way that its definition doesn't allow, or beyond our rules

    def axes(self, node: onnx.NodeProto, position: int) -> Axes:
        """Axes of an operand.

        Raises:
            KeyError: its rank is unknown.
        """
        return self.tensors[node.input[position]]

    def has(self, node: onnx.NodeProto, position: int) -> bool:
        """Whether an operand is given and its rank is known."""
        return position < len(node.input) and node.input[position] in self.tensors

    def make(self, node: onnx.NodeProto, axes: Iterable[Axis | None], position: int = 0) -> None:
        """Set the axes of a result; None stands for a new open one."""
        if position < len(node.output) and node.output[position]:
            made = tuple(axis if axis is not None else Axis() for axis in axes)
            self.tensors[node.output[position]] = made

    def constants(self, name: str) -> tuple[int, ...] | None:
        """The values of a small tensor of integers, if all are known numbers."""
        known = self.sizes.get(name)
        if known is None or any(not isinstance(size, int) for size in known):
            return None
        return tuple(size for size in known if isinstance(size, int))

    def axes_operand(self, node: onnx.NodeProto, position: int = 1) -> tuple[int, ...] | None:
        """Axes as old operators take them as an attribute and new ones as an operand; None where neither."""
        value = ops.attribute(node, "axes")
        if isinstance(value, list | tuple):
            return tuple(int(str(axis)) for axis in value)
        if position < len(node.input) and node.input[position]:
            return self.constants(node.input[position])
        return None

    def store_constant(self, node: onnx.NodeProto) -> None:
        """Note what a Constant node holds."""
        value = ops.attribute(node, "value")
        if isinstance(value, onnx.TensorProto):
            self._store(node.output[0], value)
            return
        for name in ("value_int", "value_ints"):
            found = ops.attribute(node, name)
            if isinstance(found, int):
                self.tensors[node.output[0]], self.sizes[node.output[0]] = (), (found,)
            elif isinstance(found, Sequence):
                self.tensors[node.output[0]] = (Axis(len(found)),)
                self.sizes[node.output[0]] = tuple(int(str(size)) for size in found)

    def _store(self, name: str, tensor: onnx.TensorProto) -> None:
        self.stored.add(name)
        self.tensors[name] = tuple(Axis(dim) for dim in tensor.dims)
        integers = tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
        if integers and tensor_elements(tensor.dims) <= _LARGEST_VALUE and not is_external(tensor):
            values: npt.NDArray[np.generic] = self._model.value(tensor)
            self.sizes[name] = tuple(int(str(value)) for value in values.reshape(-1))


def axes_of(model: Model) -> AxisFlow:
    """The axes of a model's tensors, found once."""
    found = model.facts.get("axes")
    if found is None:
        found = model.facts["axes"] = AxisFlow(model)
    assert isinstance(found, AxisFlow)
    return found


def broadcast(*operands: Axes) -> list[Axis | None]:
    """Axes of an elementwise result; operands are aligned at their last axes, those of size 1 give way."""
    rank = max(map(len, operands))
    result: list[Axis | None] = []
    for k in range(rank):
        aligned = [axes[k - rank + len(axes)] for axes in operands if k - rank + len(axes) >= 0]
        wide = [axis for axis in aligned if axis.size != 1]
        for other in wide[1:]:
            wide[0].join(other)
        opened = [axis for axis in wide if axis.size is None]
        result.append((opened or wide or aligned)[0])
    return result

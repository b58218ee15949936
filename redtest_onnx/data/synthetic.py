"""Inputs made up from a model's signature, for a first look without data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.data.dataset import Chosen, Feeds
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex, index_of
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import Shape
from redtest_onnx.graph.signature import InputPlan, plan_inputs, state_inputs

_PASSED_ON = frozenset({"Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten"})
_MASK = re.compile(r"mask", re.IGNORECASE)
_KIND = re.compile(r"token_type|segment", re.IGNORECASE)
_LARGEST_BYTE, _LARGEST_INTEGER = 256, 2


class Synthetic:
    """Noise, indices within their tables, ones for masks, zeros for states.

    A sample depends on the seed and its index only, so that any choice of batches sees the same ones.

    Args:
        model: what the inputs are for.
        seed: of all values.
        count: number of samples there are.
        sizes: sizes of inputs given by the user.
    """

    synthetic = True
    labelled = False
    source = "synthetic inputs"

    def __init__(self, model: Model, seed: int, count: int, sizes: Mapping[str, Shape]) -> None:
        self._model, self._seed, self._count, self._sizes = model, seed, count, sizes

    def __len__(self) -> int:
        return self._count

    def inputs(self, indices: Chosen) -> Feeds:
        """Made-up arrays for the given samples."""
        return {
            plan.name: self._input(plan, indices)
            for plan in plan_inputs(self._model, len(indices), self._sizes)
        }

    def labels(self, indices: Chosen) -> None:
        """Nobody knows the right answers."""

    def _input(self, plan: InputPlan, indices: Chosen) -> npt.NDArray[Any]:
        if plan.batch_axis is None:
            return self._values(plan, plan.shape, 0)
        shape = tuple(size for k, size in enumerate(plan.shape) if k != plan.batch_axis)
        samples = [self._values(plan, shape, int(k)) for k in indices]
        return np.stack(samples, axis=plan.batch_axis)

    def _values(self, plan: InputPlan, shape: Shape, sample: int) -> npt.NDArray[Any]:
        spec = next(spec for spec in self._model.inputs if spec.name == plan.name)
        dtype = spec.numpy_dtype
        rng = np.random.default_rng([self._seed, sample, *plan.name.encode()])
        if (constant := self._compared.get(plan.name)) is not None:
            return np.full(shape, constant, dtype)
        if dtype.kind == "b" or _MASK.search(plan.name):
            return np.ones(shape, dtype)
        if plan.name in self._states or _KIND.search(plan.name):
            return np.zeros(shape, dtype)
        if dtype.kind in "iu":
            most = self._tables.get(plan.name, _LARGEST_BYTE if dtype.itemsize == 1 else _LARGEST_INTEGER)
            return rng.integers(0, most, shape).astype(dtype)
        if dtype.kind in "SUO":
            return np.full(shape, "", dtype=object)
        return rng.standard_normal(shape, np.float32).astype(dtype)

    @cached_property
    def _states(self) -> frozenset[str]:
        return state_inputs(self._model)

    @property
    def _index(self) -> GraphIndex:
        return index_of(self._model)

    @cached_property
    def _compared(self) -> dict[str, float]:
        """Inputs compared with a constant: that constant makes the model take its first way."""
        found: dict[str, float] = {}
        for node in self._index.nodes:
            if node.op_type != "Equal":
                continue
            for name, other in (node.input, node.input[::-1]):
                value = self._constant(other)
                if value is not None and value.size == 1 and any(s.name == name for s in self._model.inputs):
                    found.setdefault(name, value.item())
        return found

    @cached_property
    def _tables(self) -> dict[str, int]:
        """Rows of the smallest table that each integer input is an index of."""
        found: dict[str, int] = {}
        for spec in self._model.inputs:
            names, rows = [spec.name], []
            for name in names:
                for reader in self._index.readers.get(name, ()):
                    node = self._index.nodes[reader]
                    if node.op_type in _PASSED_ON:
                        names.extend(node.output)
                    table = self._index.initializers.get(node.input[0]) if node.op_type == "Gather" else None
                    if table is not None and name == node.input[1] and table.dims:
                        rows.append(table.dims[int(str(ops.attribute(node, "axis", 0)))])
                    if node.op_type == "OneHot" and (depth := self._constant(node.input[1])) is not None:
                        rows.append(int(depth.item()))
            if rows:
                found[spec.name] = min(rows)
        return found

    def _constant(self, name: str) -> npt.NDArray[Any] | None:
        if (tensor := self._index.initializers.get(name)) is not None:
            return self._model.value(tensor)
        producer = self._index.producer.get(name)
        if producer is None or self._index.nodes[producer].op_type != "Constant":
            return None
        value = ops.attribute(self._index.nodes[producer], "value")
        return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else None

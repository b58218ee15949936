"""Run parts of a model on the same samples again and again, without starting from its inputs each time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import onnx

from redtest_onnx.data.batching import Indices, batches
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.subgraph import live, segment
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

_KEPT_BYTES = 1 << 29


class PartialRunner:
    """A model on fixed samples, with the tensors in front of one of its nodes kept.

    Later tensors are computed from those; what would take more than half a GiB is not kept, and earlier
    tensors serve. So the memory does not grow with the number of samples beyond that.

    Args:
        bench: the model and samples. Another model of the same structure may be put in its place (`model`) at
            any time, if it differs only in weights behind the kept tensors.
        indices: which of the samples.
        size: samples per run, where the model doesn't fix that.
        limit: bytes to keep.
    """

    def __init__(
        self,
        bench: Workbench,
        indices: Indices,
        *,
        size: int,
        limit: int = _KEPT_BYTES,
    ) -> None:
        self.model = bench.model
        self.options = bench.options
        self._data = bench.data
        fixed = bench.fixed_batch
        self._runs = list(batches(indices, fixed or size, fixed=fixed is not None))
        self._limit = limit
        self._kept: list[dict[str, Any]] = [{} for _ in self._runs]
        self._position = 0

    def advance(self, node: int) -> None:
        """Keep the tensors in front of a node, if it lies behind those kept now and they aren't too large."""
        if node <= self._position:
            return
        names = live(index_of(self.model), node)
        kept: list[dict[str, Any]] = []
        size = 0
        for values, _ in self.values(names):
            if not all(isinstance(value, np.ndarray) for value in values.values()):
                return
            size += sum(value.nbytes for value in values.values())
            if size * len(self._runs) > self._limit * (len(kept) + 1):
                return
            kept.append(values)
        self._kept, self._position = kept, node

    def values(self, names: Sequence[str], count: int | None = None) -> Iterator[tuple[dict[str, Any], int]]:
        """Tensors run by run.

        Args:
            names: the tensors.
            count: number of runs; all if None.

        Yields:
            Arrays by name, and how many of the samples in them count.
        """
        given = {name: _element_type(value) for name, value in self._kept[0].items()}
        inputs = {spec.name for spec in self.model.inputs}
        computed = [n for n in dict.fromkeys(names) if n not in given and n not in inputs]
        part = segment(self.model, computed, given)
        session = Session(part, self.options) if computed else None
        fed = [spec.name for spec in part.inputs]
        from_data = any(name not in given for name in (*fed, *names) if name in inputs)
        for (chosen, counting), kept in islice(zip(self._runs, self._kept, strict=True), count):
            known = {**self._data.inputs(chosen), **kept} if from_data else kept
            found = session.run({name: known[name] for name in fed}) if session else {}
            yield {name: found[name] if name in found else known[name] for name in names}, counting


def _element_type(value: Any) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(value.dtype))

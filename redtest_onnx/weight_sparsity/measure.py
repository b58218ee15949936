"""Measure how sparse the weights of a model are in effect, one tensor in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Counts
from redtest_onnx.documents.base import Document
from redtest_onnx.documents.result import Result
from redtest_onnx.errors import InputError
from redtest_onnx.graph.declared import declared_cost
from redtest_onnx.graph.model import Model, dtype_name
from redtest_onnx.metrics.pqi import PowerSums, power_sums
from redtest_onnx.similarity.analyze import Progress
from redtest_onnx.weight_sparsity.documents import sparsity_document
from redtest_onnx.weight_sparsity.weights import UnprunedTensor, Weight, find_weights

Pair = tuple[float, float]

PAIRS: tuple[Pair, ...] = ((0.5, 1.0), (1.0, 2.0))
"""The exponents of the paper."""

_CHUNK = 1 << 20  # weights turned into float64 at once
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_EDGES = np.linspace(-10, 4, 141)  # log10 of magnitudes


@dataclass(frozen=True)
class Group:
    """PQ Index of one group of weights.

    Attributes:
        p: smaller exponent.
        q: larger exponent.
        index: PQ Index; NaN where it is undefined (no weights, or all of them zero).
        retained: how many weights the bound of theorem 3.3 retains; 0 where the index is undefined.
    """

    p: float
    q: float
    index: float
    retained: float


@dataclass(frozen=True)
class Neurons:
    """PQ Index of the neurons of a tensor, each a group of its own.

    Attributes:
        p: smaller exponent.
        q: larger exponent.
        count: number of neurons.
        undefined: those without an index: all weights are zero.
        quantiles: index of the least sparse, the quarters, and the sparsest; NaN where none is defined.
        retained: sum of what the bounds retain.
    """

    p: float
    q: float
    count: int
    undefined: int
    quantiles: tuple[float, ...]
    retained: float


@dataclass(frozen=True)
class TensorSparsity:
    """One weight tensor.

    Attributes:
        name: of the stored tensor.
        operator: name of the operator that applies it.
        kind: of that operator.
        shape: as stored.
        dtype: as stored.
        quantised: whether it was measured on the values its numbers stand for.
        elements: number of weights.
        zeros: weights that are exactly zero.
        groups: the tensor as one group, per pair of exponents.
        neurons: its neurons, per pair of exponents.
    """

    name: str
    operator: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    quantised: bool
    elements: int
    zeros: int
    groups: tuple[Group, ...]
    neurons: tuple[Neurons, ...]


@dataclass(frozen=True)
class Histogram:
    """Magnitudes of all weights.

    Attributes:
        edges: log10 of the limits of the bins.
        counts: weights per bin; the outer bins take what lies beyond.
        zeros: weights that are exactly zero, in no bin.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    zeros: int


@dataclass(frozen=True, repr=False)
class Sparsity(Result):
    """The weights of a model.

    Attributes:
        tensors: each weight tensor.
        overall: all weights as one group, per pair of exponents.
        histogram: of their magnitudes.
        skipped: weights that could not be measured.
        eta: how much the bound lets be removed, see `metrics.pqi.retained`.
        model: what was measured.
    """

    tensors: tuple[TensorSparsity, ...]
    overall: tuple[Group, ...]
    histogram: Histogram
    skipped: tuple[UnprunedTensor, ...]
    eta: float
    model: Model | None = field(default=None, compare=False)

    def summary(self) -> str:
        """Weights and their index."""
        indices = ", ".join(f"PQ Index {g.index:.4f} (p={g.p:g}, q={g.q:g})" for g in self.overall)
        return f"{self.elements:,} weights in {len(self.tensors)} tensors, {self.zeros:,} zero; {indices}"

    def to_dict(self) -> Document:
        """The document of `sparsity --json`."""
        cost = None if self.model is None else declared_cost(self.model)
        return sparsity_document(self.model, cost, self)

    def records(self) -> list[dict[str, Any]]:
        """One entry per tensor."""
        return [
            {
                "tensor": tensor.name,
                "operator": tensor.operator,
                "weights": tensor.elements,
                "zeros": tensor.zeros,
                **{f"pq_index_{g.p:g}_{g.q:g}": g.index for g in tensor.groups},
            }
            for tensor in self.tensors
        ]

    @property
    def elements(self) -> int:
        """Number of weights."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def zeros(self) -> int:
        """Weights that are exactly zero."""
        return sum(tensor.zeros for tensor in self.tensors)

    def retained(self, pair: int) -> dict[str, float]:
        """Share of the weights that the bound retains with groups of each scope."""
        kept = {
            "neuron": sum(tensor.neurons[pair].retained for tensor in self.tensors),
            "layer": sum(tensor.groups[pair].retained for tensor in self.tensors),
            "global": self.overall[pair].retained,
        }
        return {scope: value / self.elements for scope, value in kept.items()}


def measure_sparsity(
    model: Model, pairs: Sequence[Pair] = PAIRS, *, eta: float = 0.0, progress: Progress | None = None
) -> Sparsity:
    """Measure the PQ Index of all weights of a model: per tensor, per neuron, and together.

    Args:
        model: the model; weights in external files are read one tensor at a time.
        pairs: exponents (p, q), 0 < p < q.
        eta: how much the bound lets be removed, see `metrics.pqi.retained`.
        progress: called as work is done.

    Raises:
        InputError: the model has no weights, or exponents or eta are out of range.
    """
    for p, q in pairs:
        power_sums(np.ones(1), p, q).retained(eta)  # refuses what is out of range
    weights, skipped = find_weights(model)
    if not weights:
        raise InputError(
            "no weights to measure" + (f": {skipped[0].name} is {skipped[0].reason}" if skipped else ""),
            where=model.label,
            hint="the model needs convolutions, matrix products, embeddings or recurrent cells",
        )
    tensors: list[TensorSparsity] = []
    totals: list[list[PowerSums]] = [[] for _ in pairs]
    counts: Counts = np.zeros(len(_EDGES) - 1, np.int64)
    for k, weight in enumerate(weights):
        if progress:
            progress(k, len(weights), "measuring weights")
        rows = weight.rows(model)
        if not rows.size:
            skipped.append(UnprunedTensor(weight.name, weight.operator, "holds no values"))
            continue
        if not all(np.isfinite(chunk).all() for chunk in _chunks(rows)):
            skipped.append(UnprunedTensor(weight.name, weight.operator, "holds NaN or infinity"))
            continue
        sums = [_row_sums(rows, *pair) for pair in pairs]
        whole = [part.pooled() for part in sums]
        zeros = int(rows.size - np.count_nonzero(rows))
        counts += _histogram(rows)
        tensors.append(_tensor(weight, zeros, sums, whole, eta))
        for total, part in zip(totals, whole, strict=True):
            total.append(part)
    if not tensors:
        reason = f"{skipped[0].name} {skipped[0].reason}"
        raise InputError(f"no weights to measure: {reason}", where=model.label, hint="export it again")
    overall = tuple(_group(reduce(PowerSums.merged, parts), eta) for parts in totals)
    empty = sum(tensor.zeros for tensor in tensors)
    histogram = Histogram(tuple(map(float, _EDGES)), tuple(map(int, counts)), empty)
    return Sparsity(tuple(tensors), overall, histogram, tuple(skipped), eta, model)


def _tensor(
    weight: Weight, zeros: int, sums: Sequence[PowerSums], whole: Sequence[PowerSums], eta: float
) -> TensorSparsity:
    return TensorSparsity(
        name=weight.name,
        operator=weight.operator,
        kind=weight.kind,
        shape=tuple(weight.tensor.dims),
        dtype=dtype_name(weight.tensor.data_type),
        quantised=weight.coding.quantised,
        elements=weight.elements,
        zeros=zeros,
        groups=tuple(_group(part, eta) for part in whole),
        neurons=tuple(_neurons(part, eta) for part in sums),
    )


def _group(sums: PowerSums, eta: float) -> Group:
    kept = float(sums.retained(eta))
    return Group(sums.p, sums.q, float(sums.index), 0.0 if math.isnan(kept) else kept)


def _neurons(sums: PowerSums, eta: float) -> Neurons:
    index = np.asarray(sums.index)
    defined = index[~np.isnan(index)]
    quantiles = np.quantile(defined, _QUANTILES) if defined.size else [math.nan] * len(_QUANTILES)
    return Neurons(
        p=sums.p,
        q=sums.q,
        count=index.size,
        undefined=index.size - defined.size,
        quantiles=tuple(map(float, quantiles)),
        retained=float(np.nansum(sums.retained(eta))),
    )


def _chunks(rows: npt.NDArray[Any]) -> Iterator[npt.NDArray[np.float64]]:
    """Some whole rows at a time, in float64."""
    height = max(1, _CHUNK // max(1, rows.shape[1]))
    for start in range(0, len(rows), height):
        yield rows[start : start + height].astype(np.float64)


def _row_sums(rows: npt.NDArray[Any], p: float, q: float) -> PowerSums:
    """Power sums of each row."""
    return PowerSums.stacked([power_sums(chunk, p, q, axis=1) for chunk in _chunks(rows)])


def _histogram(rows: npt.NDArray[Any]) -> Counts:
    counts: Counts = np.zeros(len(_EDGES) - 1, np.int64)
    for chunk in _chunks(rows):
        magnitudes = np.abs(chunk[chunk != 0])
        logs = np.clip(np.log10(magnitudes), _EDGES[0], _EDGES[-1])
        counts += np.histogram(logs, _EDGES)[0]
    return counts

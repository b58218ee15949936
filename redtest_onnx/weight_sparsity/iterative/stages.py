"""What every step of a pruning bought: weights, size, compressed size, latency, accuracy, side by side."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from redtest_onnx.graph.cost import Cost
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.reading import in_parts
from redtest_onnx.metrics.agreement.intervals import Interval
from redtest_onnx.runtime.latency import Latency, measure_latency
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.weight_sparsity.weights import find_weights


@dataclass(frozen=True)
class Stage:
    """A model on the way from the original to the result.

    Attributes:
        name: what was done to it last.
        weights: number of weights, see `sparsity.weights`.
        nonzero: those that are not exactly zero.
        cost: parameters, multiply-accumulates, memory.
        file_bytes: size on disk with external data.
        compressed_bytes: size of the same bytes after zlib, as in a .zip or an app package.
        latency: of one sample.
        accuracy: share of right answers; None without labels.
        same: agreement with the original's outputs by their kind; None where none could be judged.
        interval: in which that agreement on all data lies by 95 %; None where that is unknown.
    """

    name: str
    weights: int
    nonzero: int
    cost: Cost
    file_bytes: int
    compressed_bytes: int
    latency: Latency
    accuracy: float | None
    same: float | None
    interval: Interval | None = None


def measure_stages(benches: Mapping[str, Workbench]) -> tuple[Stage, ...]:
    """Measure models with the same signature; the first is the original, on whose samples all are judged.

    Args:
        benches: by the name of the stage.
    """
    original = next(iter(benches.values()))
    evaluator = original.evaluator()
    latencies = measure_latency(list(benches.values()))
    stages = []
    for (name, bench), latency in zip(benches.items(), latencies, strict=True):
        evaluation = evaluator.evaluate(bench.session())
        weights, nonzero = count_weights(bench.model)
        stages.append(
            Stage(
                name=name,
                weights=weights,
                nonzero=nonzero,
                cost=bench.cost,
                file_bytes=bench.model.file_bytes,
                compressed_bytes=compressed_bytes(bench.model),
                latency=latency,
                accuracy=evaluation.accuracy,
                same=evaluation.agreement.value,
                interval=evaluation.agreement.interval,
            )
        )
    return tuple(stages)


def count_weights(model: Model) -> tuple[int, int]:
    """Number of weights, and of those that are not zero."""
    weights, _ = find_weights(model)
    nonzero = sum(int(np.count_nonzero(weight.values(model))) for weight in weights)
    return sum(weight.elements for weight in weights), nonzero


def compressed_bytes(model: Model) -> int:
    """Size of the model's file and its external data after zlib at its usual level."""
    packer = zlib.compressobj()
    packed = sum(len(packer.compress(chunk)) for chunk in _content(model))
    return packed + len(packer.flush())


def _content(model: Model) -> Iterator[bytes]:
    yield model.serialised()
    for path in model.external_files:
        with path.open("rb") as file:
            yield from in_parts(file)

"""Two files beside one another: size, parameters, operations, latency, agreement of outputs, accuracy."""

from __future__ import annotations

from dataclasses import dataclass

from redtest_onnx.data.splits import holdout_indices
from redtest_onnx.errors import InputError
from redtest_onnx.graph.cost import Cost
from redtest_onnx.graph.model import first_line
from redtest_onnx.metrics.agreement.summary import Agreement
from redtest_onnx.runtime.evaluate import Evaluator
from redtest_onnx.runtime.latency import Latency, measure_latency
from redtest_onnx.runtime.opened import resolve_cost
from redtest_onnx.similarity.tensors import TensorSide


@dataclass(frozen=True)
class FileMeasures:
    """One side.

    Attributes:
        cost: parameters, multiply-accumulates, memory.
        file_bytes: size on disk with external data.
        latency: of one sample.
        accuracy: share of right answers; None without labels.
    """

    cost: Cost
    file_bytes: int
    latency: Latency
    accuracy: float | None


@dataclass(frozen=True)
class SideBySide:
    """Two files.

    Attributes:
        before: the first.
        after: the second.
        agreement: of the second's outputs with the first's; None where they can't be compared.
        samples: number of samples for agreement and accuracy.
        source: where they came from.
        note: why outputs can't be compared; None if they can.
    """

    before: FileMeasures
    after: FileMeasures
    agreement: Agreement | None
    samples: int
    source: str
    note: str | None = None


def measure_side_by_side(first: TensorSide, second: TensorSide, seed: int = 0) -> SideBySide:
    """Measure two files on the same samples.

    Args:
        first: the reference.
        second: the other one; sample k of its data belongs to sample k of the first.
        seed: of the choice of samples.

    Raises:
        InputError: a side doesn't run on its data.
    """
    indices = holdout_indices(first.data, seed)
    evaluator = Evaluator(first.model, first.data, indices, first.options)
    agreement, accuracy, note = None, None, None
    try:
        result = evaluator.match_sets(second.model, second.data, second.options)
        agreement, accuracy = result.agreement, result.accuracy
    except InputError as error:
        note = f"the outputs of the two can't be compared: {first_line(error)}"
    if first.options == second.options:
        latencies = measure_latency([first.model, second.model], first.data, first.options)
    else:
        latencies = [measure_latency([side.model], side.data, side.options)[0] for side in (first, second)]
    accuracies = evaluator.reference.accuracy, accuracy
    sides = [
        FileMeasures(resolve_cost(side.model, side.data, side.options), side.model.file_bytes, latency, right)
        for side, latency, right in zip((first, second), latencies, accuracies, strict=True)
    ]
    return SideBySide(*sides, agreement, len(indices), first.data.source, note)

"""Two files beside one another: size, parameters, operations, latency, agreement of outputs, accuracy."""

from __future__ import annotations

from dataclasses import dataclass

from redtest_onnx.errors import InputError
from redtest_onnx.graph.cost import Cost
from redtest_onnx.graph.model import first_line
from redtest_onnx.metrics.agreement.summary import Agreement
from redtest_onnx.runtime.evaluate import CandidateSession
from redtest_onnx.runtime.latency import Latency, measure_latency
from redtest_onnx.runtime.workbench import Workbench


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


def measure_side_by_side(first: Workbench, second: Workbench) -> SideBySide:
    """Measure two files on the same samples.

    Args:
        first: the reference.
        second: the other one; sample k of its data belongs to sample k of the first.

    Raises:
        InputError: a side doesn't run on its data.
    """
    evaluator = first.evaluator()
    agreement, accuracy, note = None, None, None
    try:
        result = evaluator.match_sets(CandidateSession(second.session(), second.data))
        agreement, accuracy = result.agreement, result.accuracy
    except InputError as error:
        note = f"the outputs of the two can't be compared: {first_line(error)}"
    if first.sample.keys() == second.sample.keys() and first.options == second.options:
        latencies = measure_latency([first, second])
    else:
        latencies = [measure_latency([side])[0] for side in (first, second)]
    accuracies = evaluator.reference.accuracy, accuracy
    sides = [
        FileMeasures(side.cost, side.model.file_bytes, latency, right)
        for side, latency, right in zip((first, second), latencies, accuracies, strict=True)
    ]
    return SideBySide(sides[0], sides[1], agreement, len(first.judging), first.judging.source, note)

"""From a model to one with fewer weights, verified and measured step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from redtest_onnx.documents.base import Document
from redtest_onnx.documents.result import Result
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning.verify import verify
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Progress
from redtest_onnx.weight_sparsity.channels.compact import CompactionResult, Cut, compact
from redtest_onnx.weight_sparsity.documents import pruning_document
from redtest_onnx.weight_sparsity.iterative.stages import Stage, measure_stages
from redtest_onnx.weight_sparsity.masks import Mask
from redtest_onnx.weight_sparsity.weights import Weight

ORIGINAL, LAYERS, ZEROED, COMPACTED = (
    *("original", "layers removed", "weights zeroed", "zero channels removed"),
)


@dataclass(frozen=True)
class Kept:
    """How much of a tensor is left."""

    name: str
    operator: str
    weights: int
    kept: int


@dataclass(frozen=True, repr=False)
class WeightPruning(Result):
    """A model with fewer weights, and its proof.

    Attributes:
        model: the result, not saved yet.
        stages: the original and what each step made of it.
        tensors: how much of each pruned tensor is left, before channels were removed.
        cuts: channels that were removed.
        evaluated_on: where the samples of accuracy and agreement came from.
        evaluated: number of those samples.
        original: the model before.
    """

    model: Model
    stages: tuple[Stage, ...]
    tensors: tuple[Kept, ...]
    cuts: tuple[Cut, ...]
    evaluated_on: str
    evaluated: int
    original: Model | None = field(default=None, compare=False)

    def summary(self) -> str:
        """What is left."""
        first, last = self.stages[0], self.stages[-1]
        return f"{last.nonzero:,} of {first.nonzero:,} weights are left ({last.nonzero / first.nonzero:.1%})"

    def to_dict(self) -> Document:
        """The document of `sparsity --method --json`."""
        return pruning_document(self, {}, None, [])

    def records(self) -> list[dict[str, Any]]:
        """One entry per stage."""
        return [
            {
                "stage": stage.name,
                "nonzero": stage.nonzero,
                "file_bytes": stage.file_bytes,
                "compressed_bytes": stage.compressed_bytes,
                "latency_ms": stage.latency.p50,
                "accuracy": stage.accuracy,
            }
            for stage in self.stages
        ]


@dataclass(frozen=True)
class MaskedModel:
    """A model some of whose weights are zero.

    Attributes:
        model: the model.
        weights: the pruned tensors of the model before.
        masks: what is left of each of them.
        before: what was done to the original first, by the name of the stage.
    """

    model: Model
    weights: Sequence[Weight]
    masks: Sequence[Mask]
    before: Mapping[str, Model] = field(default_factory=dict)


def finish(
    bench: Workbench, masked: MaskedModel, *, keep_channels: bool = False, progress: Progress | None = None
) -> WeightPruning:
    """Remove zero channels from a masked model, verify the result, and measure all stages.

    Args:
        bench: the original and calibration samples.
        masked: what became of it.
        keep_channels: leave the graph as it is.
        progress: called as work is done.

    Raises:
        InternalError: the result doesn't verify.
    """
    note = progress or (lambda done, total, what: None)
    models = {**masked.before, ZEROED: masked.model}
    stages = {ORIGINAL: bench, **{name: bench.successor(model) for name, model in models.items()}}
    compacted = CompactionResult(masked.model, ())
    if not keep_channels:
        note(0, 3, "removing zero channels")
        compacted = compact(stages[ZEROED])
    if compacted.cuts:
        stages[COMPACTED] = bench.successor(compacted.model)
    note(1, 3, "verifying")
    verify(bench, list(stages.values())[-1])
    note(2, 3, "comparing and timing")
    measured = measure_stages(stages)
    note(3, 3, "comparing and timing")
    kept = tuple(
        Kept(weight.name, weight.operator, weight.elements, int(np.count_nonzero(mask)))
        for weight, mask in zip(masked.weights, masked.masks, strict=True)
    )
    return WeightPruning(
        model=compacted.model,
        stages=measured,
        tensors=kept,
        cuts=compacted.cuts,
        evaluated_on=bench.judging.source,
        evaluated=len(bench.judging),
        original=bench.model,
    )

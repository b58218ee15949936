"""From a model to one with fewer weights, verified and measured step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from redtest_onnx.data.dataset import Dataset
from redtest_onnx.data.splits import holdout_indices, sample_indices
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning.verify import verify
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.similarity.analyze import Progress
from redtest_onnx.weight_sparsity.channels.compact import CompactionResult, Cut, compact
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


@dataclass(frozen=True)
class WeightPruning:
    """A model with fewer weights, and its proof.

    Attributes:
        model: the result, not saved yet.
        stages: the original and what each step made of it.
        tensors: how much of each pruned tensor is left, before channels were removed.
        cuts: channels that were removed.
        evaluated_on: where the samples of accuracy and agreement came from.
        evaluated: number of those samples.
    """

    model: Model
    stages: tuple[Stage, ...]
    tensors: tuple[Kept, ...]
    cuts: tuple[Cut, ...]
    evaluated_on: str
    evaluated: int


def finish(
    models: Mapping[str, Model],
    weights: Sequence[Weight],
    masks: Sequence[Mask],
    data: Dataset,
    *,
    keep_channels: bool = False,
    evaluation: Dataset | None = None,
    seed: int = 0,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> WeightPruning:
    """Remove zero channels from a masked model, verify the result, and measure all stages.

    Args:
        models: by the name of their stage: the original first, the masked model last.
        weights: the pruned tensors.
        masks: what is left of them.
        data: calibration samples.
        keep_channels: leave the graph as it is.
        evaluation: samples for accuracy and agreement; held-out calibration samples if absent.
        seed: of the choice of samples.
        options: device and threads.
        progress: called as work is done.

    Raises:
        InternalError: the result doesn't verify.
    """
    options = options or RunOptions()
    note = progress or (lambda done, total, what: None)
    stages = dict(models)
    compacted = CompactionResult(list(stages.values())[-1], ())
    if not keep_channels:
        note(0, 3, "removing zero channels")
        compacted = compact(compacted.model, data, options)
    if compacted.cuts:
        stages[COMPACTED] = compacted.model
    note(1, 3, "verifying")
    verify(stages[ORIGINAL], compacted.model, data, options)
    note(2, 3, "comparing and timing")
    samples, indices = data, holdout_indices(data, seed)
    if evaluation is not None:
        samples, indices = evaluation, sample_indices(evaluation, len(evaluation), seed)
    measured = measure_stages(stages, samples, indices, options)
    note(3, 3, "done")
    kept = tuple(
        Kept(weight.name, weight.operator, weight.elements, int(np.count_nonzero(mask)))
        for weight, mask in zip(weights, masks, strict=True)
    )
    return WeightPruning(compacted.model, measured, kept, compacted.cuts, samples.source, len(indices))

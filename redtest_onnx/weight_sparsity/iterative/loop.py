"""Iterative pruning with rewinding: SAP, the lottery ticket, and one-shot with retraining.

Diao et al. (2023), arXiv 2302.05601, algorithm 2; Frankle and Carbin (2019) for the lottery ticket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import reduce
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from redtest_onnx.metrics.pqi import PowerSums, power_sums
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.weight_sparsity.apply import full_masks
from redtest_onnx.weight_sparsity.iterative.checkpoints import Checkpoints
from redtest_onnx.weight_sparsity.iterative.masked import MaskedModule
from redtest_onnx.weight_sparsity.iterative.records import Iteration, IterationState, LoopSettings
from redtest_onnx.weight_sparsity.iterative.training import MaskedTraining
from redtest_onnx.weight_sparsity.masks import Mask, Rows, prune_smallest
from redtest_onnx.weight_sparsity.measure import Pair
from redtest_onnx.weight_sparsity.weights import Weight


def iterate(
    bench: Workbench,
    weights: Sequence[Weight],
    settings: LoopSettings,
    folder: Path | None = None,
) -> Iterator[IterationState]:
    """Train, measure, prune, rewind; yields after every training, `iterations + 1` times.

    Args:
        bench: the weights to rewind to, untrained ones for the papers' setting, and samples with labels;
            those of the split for judging validate, all others train.
        weights: of the model: those that are pruned.
        settings: how.
        folder: where every iteration is kept; what lies there from a run that was broken off is used, and
            the result is the same as if it had not been.

    Raises:
        InputError: no labels, a weight can't be trained, training diverges, or `folder` is of another run.
    """
    from redtest_onnx.training.processes import processes

    model = bench.model
    with processes(bench.options.device) as group:
        training = MaskedTraining(bench, settings.training, group)
        module = training.module
        masked = MaskedModule(model, module, weights)
        initial = deepcopy(module.state_dict())
        checkpoints = Checkpoints(folder, model, weights, settings)
        masks = full_masks(weights)
        trained: list[Rows] = []
        for number in range(settings.iterations + 1):
            step = checkpoints.load(number)
            if step is None:
                if settings.rewind:
                    module.load_state_dict(initial)
                step = _trained(training, masked, masks, number, settings)
                checkpoints.save(step)
            checkpoints.apply(step, masked)
            masked.mask(step.masks)
            yield step
            if settings.method != "one-shot" or number == 0:
                trained = [masked.rows(k) for k in range(len(weights))]
            masks = prune_smallest(trained.__getitem__, step.masks, settings.scope, settings.rule)


def index_by_scope(rows: Sequence[Rows], masks: Sequence[Mask], pair: Pair) -> dict[str, float]:
    """PQ Index of the weights that are left: of all together, mean over tensors, mean over neurons."""
    neurons = [power_sums(values, *pair, axis=1, mask=mask) for values, mask in zip(rows, masks, strict=True)]
    layers = [part.pooled() for part in neurons]
    return {
        "neuron": _mean(np.concatenate([np.asarray(part.index) for part in neurons])),
        "layer": _mean(np.array([float(part.index) for part in layers])),
        "global": float(reduce(PowerSums.merged, layers).index),
    }


def _trained(
    training: MaskedTraining, masked: MaskedModule, masks: list[Mask], number: int, settings: LoopSettings
) -> IterationState:
    begin = perf_counter()
    masked.mask(masks)
    reached = training.run(number, masked.hold)
    rows = [masked.rows(k) for k in range(len(masks))]
    record = Iteration(
        number=number,
        kept=sum(int(np.count_nonzero(mask)) for mask in masks),
        weights=sum(mask.size for mask in masks),
        pq_index=tuple(index_by_scope(rows, masks, pair) for pair in settings.pairs),
        accuracy=reached.accuracy,
        loss=reached.loss,
        seconds=perf_counter() - begin,
    )
    state = {name: value.cpu() for name, value in deepcopy(masked.module.state_dict()).items()}
    return IterationState(record, masks, state)


def _mean(index: Any) -> float:
    defined = index[~np.isnan(index)]
    return float(defined.mean()) if defined.size else float("nan")

"""From a model to its sparsest trained version that is still good enough, written back into its graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from redtest_onnx.data.dataset import Subset
from redtest_onnx.errors import InputError, InternalError, NegativeVerdictError
from redtest_onnx.graph.model import Model
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Progress
from redtest_onnx.weight_sparsity.iterative.loop import iterate
from redtest_onnx.weight_sparsity.iterative.records import Iteration, IterationState, LoopSettings
from redtest_onnx.weight_sparsity.masks import Mask
from redtest_onnx.weight_sparsity.weights import Weight, find_weights

# Answers that rounding may turn over.
_TURNED = 0.02


@dataclass(frozen=True)
class IterativePruning:
    """A model pruned with training.

    Attributes:
        model: the trained model with zeros in it.
        masks: what is left of each pruned tensor.
        iterations: figures of all trainings.
        chosen: the one that became the model.
        reference: accuracy on the validation samples that it is held against.
    """

    model: Model
    masks: list[Mask]
    iterations: tuple[Iteration, ...]
    chosen: Iteration
    reference: float


def prune_iteratively(
    bench: Workbench,
    weights: Sequence[Weight],
    settings: LoopSettings,
    *,
    max_drop: float = 0.01,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> IterativePruning:
    """Train and prune in turns, and keep the sparsest result within `max_drop`.

    It is held against the better of the model itself and its dense training, on the validation samples.

    Args:
        bench: the model that every training starts from, and samples with labels; those of the split for
            judging validate, all others train.
        weights: of the model: those that are pruned.
        settings: how.
        max_drop: accuracy that may be lost.
        folder: see `iterate`.
        progress: called as work is done.

    Raises:
        InputError: see `iterate`; or the chosen iteration was read from a file that contradicts itself.
        NegativeVerdictError: no pruned model is good enough.
        InternalError: the written model doesn't give the trained module's answers.
    """
    from redtest_onnx.bridge import from_torch, to_torch

    reference = _accuracy(bench, bench.session())
    best: IterationState | None = None
    records: list[Iteration] = []
    for step in iterate(bench, weights, settings, folder):
        record = step.record
        records.append(record)
        if record.number == 0:
            reference = max(reference, record.accuracy)
        elif record.accuracy >= reference - max_drop - 1e-9 and (best is None or _kept(step) < _kept(best)):
            best = step
        if progress:
            words = f"iteration {record.number}: {record.kept / record.weights:.1%} of the weights"
            progress(record.number + 1, settings.iterations + 1, f"{words}, accuracy {record.accuracy:.2%}")
    if best is None:
        raise NegativeVerdictError(
            f"no iteration is within {max_drop:.1%} of an accuracy of {reference:.2%}",
            where=bench.label,
            hint="allow a larger @max_drop, train longer with @epochs, or prune less in an iteration",
        )
    module = to_torch(bench.model, batch_norm=settings.training.statistics)
    module.load_state_dict(best.state)
    written = from_torch(module, bench.model)
    _check(bench, written, weights, best)
    return IterativePruning(written, best.masks, tuple(records), best.record, reference)


def _accuracy(bench: Workbench, session: Session) -> float:
    """Of a model in ONNX Runtime, on the validation samples; 0 without labels, which training refuses."""
    samples = Subset(bench.data, bench.splits.judge)
    return bench.evaluator(samples).evaluate(session).accuracy or 0.0


def _kept(step: IterationState) -> int:
    return step.record.kept


def _check(bench: Workbench, model: Model, weights: Sequence[Weight], step: IterationState) -> None:
    """The file must hold the masks' zeros and give the module's answers."""
    fresh = {weight.name: weight for weight in find_weights(model)[0]}
    for weight, mask in zip(weights, step.masks, strict=True):
        if np.any(fresh[weight.name].rows(model)[~mask]):
            raise InternalError(f"{weight.name} has weights where it is masked")
    found = _accuracy(bench, Session(model, bench.options))
    if abs(found - step.record.accuracy) <= _TURNED:
        return
    if step.source is not None:
        raise InputError(
            f"its weights reach an accuracy of {found:.2%}, its record says {step.record.accuracy:.2%}",
            where=str(step.source),
            hint="delete it to train this iteration again",
        )
    raise InternalError(f"the written model's accuracy is {found}, in training {step.record.accuracy}")

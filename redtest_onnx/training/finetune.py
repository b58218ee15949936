"""Fine-tune an ONNX model in PyTorch and write the weights back into the same graph."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from redtest_onnx.bridge.convert import to_torch
from redtest_onnx.bridge.module import OnnxModule
from redtest_onnx.bridge.statistics import check_statistics
from redtest_onnx.bridge.verify import Verification, verify
from redtest_onnx.bridge.write_back import from_torch
from redtest_onnx.data.batching import Indices
from redtest_onnx.data.dataset import Dataset
from redtest_onnx.data.splits import sample_indices
from redtest_onnx.errors import InputError, InternalError
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.signature import fixed_batch
from redtest_onnx.layers.layer import find_layers
from redtest_onnx.runtime.evaluate import Evaluator
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.shapes import resolve_shapes
from redtest_onnx.training.augment import augmentation
from redtest_onnx.training.batches import Samples
from redtest_onnx.training.checkpoint import Checkpoint
from redtest_onnx.training.loop import Note, Report, Score, Trainer, TrainingTask
from redtest_onnx.training.objective import TrainingObjective, common_features, make_objective
from redtest_onnx.training.processes import ProcessGroup, processes
from redtest_onnx.training.settings import TrainingSettings

# Weights after training drift a little more between the two runtimes than exported ones.
_TOLERANCE = 1e-3
_FEWEST = 8
_MOST_VALIDATION = 5000


@dataclass(frozen=True)
class ValidationResult:
    """Accuracy of a model on samples it was not trained on.

    Attributes:
        source: what messages call the samples.
        samples: how many.
        before: accuracy of the model that was given, by ONNX Runtime; None without labels.
        after: accuracy of the fine-tuned model, by ONNX Runtime.
        after_torch: the same by PyTorch.
    """

    source: str
    samples: int
    before: float | None
    after: float | None
    after_torch: float | None


@dataclass(frozen=True)
class FineTuning:
    """A fine-tuned model and how it came about.

    Attributes:
        model: the graph that was given with trained weights, not saved yet.
        history: a record per epoch: learning rate, losses, validation.
        best_epoch: the epoch whose weights were kept, from 1; 0 if the weights that were given were best.
        start: validation before training.
        trained_on: number of training samples.
        validated: the model on the samples that chose the epoch.
        tested: the model on samples that had no part in training; None if none were given.
        verification: PyTorch against ONNX Runtime on the written weights.
        leads: whether this process is the one that writes files.
    """

    model: Model
    history: tuple[dict[str, Any], ...]
    best_epoch: int
    start: Score
    trained_on: int
    validated: ValidationResult
    tested: ValidationResult | None
    verification: Verification
    leads: bool = True


def finetune(
    model: Model,
    data: Dataset,
    settings: TrainingSettings | None = None,
    *,
    teacher: Model | None = None,
    validation: Dataset | None = None,
    test: Dataset | None = None,
    options: RunOptions | None = None,
    checkpoint: os.PathLike[str] | str | None = None,
    resume: bool = False,
    after_step: Callable[[OnnxModule], None] | None = None,
    report: Report | None = None,
    progress: Note | None = None,
) -> FineTuning:
    """Train the weights of a model; its graph stays as it is.

    With labels it learns from them, with a teacher from what the teacher answers, with both from both. The
    weights of the epoch with the best validation are kept; `test` is only looked at when training is over.

    Args:
        model: the model, pruned or not.
        data: training samples.
        settings: see `TrainingSettings`.
        teacher: the model to imitate, usually the original.
        validation: samples that choose the best epoch; a part of `data` held out if absent.
        test: samples for a last judgement.
        options: device and threads.
        checkpoint: file for the state of the run, removed when it is through.
        resume: go on from that file.
        after_step: called with the module after each step.
        report: called with the record of each epoch.
        progress: called with steps done, all steps, and what is done.

    Raises:
        InputError: operators that can't be trained, data that doesn't fit, or nothing to learn from.
        NegativeVerdictError: training diverged.
        OutputError: the checkpoint holds an interrupted run that was not asked for.
    """
    settings, options = settings or TrainingSettings(), options or RunOptions()
    if options.threads:
        torch.set_num_threads(options.threads)
    with processes(options.device) as group:
        return _finetune(
            model,
            data,
            settings,
            group,
            options,
            teacher=teacher,
            validation=validation,
            test=test,
            checkpoint=_checkpoint(checkpoint, model, data, teacher, settings, resume=resume),
            after_step=after_step,
            report=report,
            note=progress or (lambda done, total, what: None),
        )


def _finetune(
    model: Model,
    data: Dataset,
    settings: TrainingSettings,
    group: ProcessGroup,
    options: RunOptions,
    *,
    teacher: Model | None,
    validation: Dataset | None,
    test: Dataset | None,
    checkpoint: Checkpoint | None,
    after_step: Callable[[OnnxModule], None] | None,
    report: Report | None,
    note: Note,
) -> FineTuning:
    note(0, 1, "converting to PyTorch")
    task = _task(model, data, validation, settings, teacher, options, group.world)
    if settings.batch_norm == "train":
        check_statistics(model)
    module = to_torch(model, batch_norm=settings.batch_norm)
    trainer = Trainer(
        module,
        model,
        task,
        settings,
        group,
        checkpoint=checkpoint,
        after_step=after_step,
        report=report,
        note=note,
    )
    _check_labels(trainer, model)
    note(0, trainer.steps, "validating the model as it is")
    start = trainer.score(task.validation)
    done = trainer.run(start)
    note(trainer.steps, trainer.steps, "verifying with ONNX Runtime")
    trained = from_torch(module, model)
    verification = verify(module, trained, _feeds(task.validation, module), tolerance=_TOLERANCE)
    if not verification.agrees:
        raise InternalError(f"PyTorch and ONNX Runtime differ by {verification.largest:.2g} after training")
    validated = _judge(model, trained, trainer, task.validation, options)
    tested = None
    if test is not None:
        everything = np.arange(len(test), dtype=np.int64)
        tested = _judge(model, trained, trainer, _samples(test, everything, model, settings, 1), options)
    if checkpoint is not None and group.leads:
        checkpoint.remove()
    return FineTuning(
        model=trained,
        history=tuple(done.history),
        best_epoch=done.best_epoch + 1,
        start=start,
        trained_on=len(task.samples),
        validated=validated,
        tested=tested,
        verification=verification,
        leads=group.leads,
    )


def _task(
    model: Model,
    data: Dataset,
    validation: Dataset | None,
    settings: TrainingSettings,
    teacher: Model | None,
    options: RunOptions,
    world: int,
) -> TrainingTask:
    if len(data) < _FEWEST:
        raise InputError(
            f"has {len(data)} samples, at least {_FEWEST} are needed to train", where=data.source
        )
    order = sample_indices(data, len(data), settings.seed)
    chosen = order
    if validation is None:
        held = min(max(1, round(settings.validation * len(data))), _MOST_VALIDATION)
        order, chosen = order[held:], order[:held]
    judged = data if validation is None else validation
    if validation is not None:
        chosen = sample_indices(validation, min(len(validation), _MOST_VALIDATION), settings.seed)
    objective = make_objective(
        model,
        settings,
        labelled=data.labelled and judged.labelled,
        teacher=teacher,
        features=_features(model, teacher, data, options) if settings.feature_weight > 0 else (),
    )
    if teacher is not None and [s.name for s in teacher.inputs] != [s.name for s in model.inputs]:
        raise InputError(
            "the teacher takes other inputs than the model",
            where=teacher.label,
            hint="the teacher is the original model",
        )
    return TrainingTask(
        _samples(data, order, model, settings, world),
        _samples(judged, np.sort(chosen), model, settings, 1),
        objective,
        None if teacher is None else to_torch(teacher, batch_norm="frozen"),
        augmentation(model, settings.augment),
    )


def _samples(
    data: Dataset, indices: Indices, model: Model, settings: TrainingSettings, world: int
) -> Samples:
    fixed = fixed_batch(model)
    whole = (fixed or 1) * world
    return Samples(data, indices, max(1, settings.batch_size // whole) * whole, fixed)


def _features(model: Model, teacher: Model | None, data: Dataset, options: RunOptions) -> tuple[str, ...]:
    """Outputs of layers that both models have."""
    if teacher is None:
        return ()
    index = GraphIndex(teacher.graph)
    layers = find_layers(index, resolve_shapes(teacher, index, data, options).shapes)
    return common_features(model, teacher, tuple(layer.tensor for layer in layers))


def _check_labels(trainer: Trainer, model: Model) -> None:
    """Refuse labels beyond the model's classes before any step."""
    objective, samples = trainer.task.objective, trainer.task.samples
    if not objective.labelled:
        return
    labels = samples.data.labels(samples.indices)
    classes = _classes(trainer, objective, model)
    if labels is not None and (labels.max() >= classes or labels.min() < 0):
        raise InputError(
            f"its labels go from {labels.min()} to {labels.max()}, the model has {classes} classes",
            where=samples.data.source,
            hint="number the classes from 0 as the model does",
        )


def _classes(trainer: Trainer, objective: TrainingObjective, model: Model) -> int:
    batch = next(trainer.task.validation.in_order()).to(trainer.group.device)
    with torch.no_grad():
        scores = trainer.module.tensors(objective.scores[:1], **batch.inputs)[objective.scores[0]]
    if scores.dim() < 2 or len(scores) != len(batch):
        raise InputError(
            f"labels are one class per sample, the output {objective.scores[0]!r} is {list(scores.shape)}",
            where=model.label,
            hint="--teacher with --task regression learns from another model instead",
        )
    return int(scores[0].numel())


def _judge(
    before: Model, after: Model, trainer: Trainer, samples: Samples, options: RunOptions
) -> ValidationResult:
    evaluator = Evaluator(before, samples.data, samples.indices, options)
    result = evaluator.evaluate(after)
    return ValidationResult(
        samples.data.source,
        len(samples),
        evaluator.reference.accuracy,
        result.accuracy,
        trainer.score(samples).accuracy,
    )


def _feeds(samples: Samples, module: OnnxModule) -> dict[str, np.ndarray]:
    batch = next(samples.in_order())
    return {name: batch.inputs[name].numpy() for name in module.input_names}


def _checkpoint(
    path: os.PathLike[str] | str | None,
    model: Model,
    data: Dataset,
    teacher: Model | None,
    settings: TrainingSettings,
    *,
    resume: bool,
) -> Checkpoint | None:
    if path is None:
        return None
    identity = {
        "model": model.sha256,
        "teacher": teacher.sha256 if teacher else None,
        "data": [data.source, len(data)],
        "settings": settings.fixed(),
    }
    checkpoint = Checkpoint(Path(path), identity, resume)
    checkpoint.check()
    return checkpoint

"""Fine-tune an ONNX model in PyTorch and write the weights back into the same graph."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from redtest_onnx.arrays import Indices
from redtest_onnx.bridge.convert import to_torch
from redtest_onnx.bridge.device import torch_threads
from redtest_onnx.bridge.module import OnnxModule
from redtest_onnx.bridge.statistics import check_statistics
from redtest_onnx.bridge.verify import Verification, verify
from redtest_onnx.bridge.write_back import from_torch
from redtest_onnx.data.dataset import Dataset, Subset
from redtest_onnx.data.fingerprint import fingerprint
from redtest_onnx.data.splits import sample_indices
from redtest_onnx.documents.base import Document
from redtest_onnx.documents.result import Result
from redtest_onnx.errors import InputError, InternalError
from redtest_onnx.graph.cost import Cost
from redtest_onnx.graph.model import Model
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.training.augment import augmentation
from redtest_onnx.training.axes import SampleAxes
from redtest_onnx.training.batches import Samples
from redtest_onnx.training.checkpoint import Checkpoint
from redtest_onnx.training.documents import finetune_document, training_document
from redtest_onnx.training.loop import Score, Trainer, TrainingTask, Watch
from redtest_onnx.training.objective import TrainingObjective, common_features, make_objective
from redtest_onnx.training.positions import positional_tensors
from redtest_onnx.training.processes import ProcessGroup, processes
from redtest_onnx.training.settings import TrainingSettings
from redtest_onnx.training.taught import TeacherModule, cache_sources, teacher_variances
from redtest_onnx.training.whitened import settings_for

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


@dataclass(frozen=True, repr=False)
class FineTuning(Result):
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
        settings: how it was trained.
        original: the model that was given.
        cost: of the model.
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
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    original: Model | None = field(default=None, compare=False)
    cost: Cost | None = field(default=None, compare=False)

    def summary(self) -> str:
        """Epochs and what they brought."""
        judged = self.validated
        quality = f"validation loss {self.start.loss:.4f} before"
        if judged.before is not None and judged.after is not None:
            quality = f"validation accuracy {judged.before:.2%} -> {judged.after:.2%}"
        return f"{len(self.history)} epochs, the best is {self.best_epoch}; {quality}"

    def document(self) -> Document:
        """What the training brought, as a part of other documents."""
        return training_document(self)

    def to_dict(self) -> Document:
        """The document of `finetune --json`."""
        return finetune_document(self, None)

    def records(self) -> list[dict[str, Any]]:
        """One entry per epoch."""
        return list(self.history)


@dataclass(frozen=True)
class ValidationData:
    """Samples beside those that are trained on.

    Attributes:
        validation: samples that choose the best epoch; a part of the training samples held out if None.
        test: samples for a last judgement.
    """

    validation: Dataset | None = None
    test: Dataset | None = None


@dataclass(frozen=True)
class CheckpointFile:
    """Where the state of a run is kept until it is through.

    Attributes:
        path: the file, removed at the end.
        resume: continue from it.
    """

    path: Path
    resume: bool = False


def finetune(
    bench: Workbench,
    settings: TrainingSettings | None = None,
    *,
    teacher: Model | None = None,
    others: ValidationData | None = None,
    checkpoint: CheckpointFile | None = None,
    watch: Watch | None = None,
) -> FineTuning:
    """Train the weights of a model; its graph stays as it is.

    With labels it learns from them, with a teacher from what the teacher answers, with both from both. The
    weights of the epoch with the best validation are kept; test samples are only looked at when training is
    over.

    Args:
        bench: the model, pruned or not, and training samples.
        settings: see `TrainingSettings`.
        teacher: the model to imitate, usually the original.
        others: samples that validate and test.
        checkpoint: where the state of the run is kept.
        watch: who is told what happens.

    Raises:
        InputError: operators that can't be trained, data that doesn't fit, or nothing to learn from.
        NegativeVerdictError: training diverged.
        OutputError: the checkpoint holds an interrupted run that was not asked for.
    """
    settings = settings or TrainingSettings()
    with torch_threads(bench.options.threads), processes(bench.options.device) as group:
        run = _Run(bench, settings, group, teacher, others or ValidationData(), watch or Watch())
        return run(_checkpoint(checkpoint, bench, teacher, settings))


@dataclass(frozen=True)
class _Run:
    """One run of fine-tuning; its attributes are the arguments of `finetune`, and the processes."""

    bench: Workbench
    settings: TrainingSettings
    group: ProcessGroup
    teacher: Model | None
    others: ValidationData
    watch: Watch

    def __call__(self, checkpoint: Checkpoint | None) -> FineTuning:
        model, note = self.bench.model, self.watch.note
        note(0, 1, "converting to PyTorch")
        task = self._task()
        settings = settings_for(task.objective, model, self.settings)
        if settings.statistics == "train":
            check_statistics(self.bench)
        module = to_torch(model, batch_norm=settings.statistics)
        positional = positional_tensors(module, task.objective.names, task.samples)
        variances = teacher_variances(task.teacher, task.samples) if task.teacher is not None else {}
        task = replace(task, objective=replace(task.objective, positional=positional, variances=variances))
        trainer = Trainer(module, model, task, settings, self.group, checkpoint=checkpoint, watch=self.watch)
        _check_labels(trainer, model)
        note(0, trainer.steps, "validating the model as it is")
        start = trainer.score(task.validation)
        done = trainer.run(start)
        note(trainer.steps, trainer.steps, "verifying with ONNX Runtime")
        trained = from_torch(module, model)
        verification = verify(module, trained, _feeds(task.validation, module), tolerance=_TOLERANCE)
        if not verification.agrees:
            raise InternalError(
                f"PyTorch and ONNX Runtime differ by {verification.largest:.2g} after training"
            )
        validated = self._judge(trained, trainer, task.validation)
        tested = None
        if self.others.test is not None:
            everything = np.arange(len(self.others.test), dtype=np.int64)
            tested = self._judge(trained, trainer, self._samples(self.others.test, everything, 1))
        if checkpoint is not None and self.group.leads:
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
            leads=self.group.leads,
            settings=settings,
            original=model,
            cost=self.bench.cost,
        )

    def _task(self) -> TrainingTask:
        model, data, settings, teacher = self.bench.model, self.bench.data, self.settings, self.teacher
        if len(data) < _FEWEST:
            raise InputError(
                f"has {len(data)} sample{'s' * (len(data) != 1)}, at least {_FEWEST} are needed to train",
                where=data.source,
            )
        order = sample_indices(data, len(data), settings.seed)
        chosen, judged = order, self.others.validation
        if judged is None:
            held = min(max(1, round(settings.validation * len(data))), _MOST_VALIDATION)
            order, chosen, judged = order[held:], order[:held], data
        else:
            chosen = sample_indices(judged, min(len(judged), _MOST_VALIDATION), settings.seed)
        objective = make_objective(
            model,
            settings,
            labelled=data.labelled and judged.labelled,
            teacher=teacher,
            features=self._features() if settings.feature_weight > 0 else (),
            axes=self._axes,
        )
        sources = {} if teacher is None else cache_sources(teacher, model)
        taught = None if teacher is None else to_torch(teacher, batch_norm="frozen")
        return TrainingTask(
            self._samples(data, order, self.group.world),
            self._samples(judged, np.sort(chosen), 1),
            objective,
            None if taught is None else TeacherModule(taught, objective.names, sources, self._axes),
            augmentation(model, settings.augment),
        )

    def _samples(self, data: Dataset, indices: Indices, world: int) -> Samples:
        fixed = self.bench.fixed_batch
        whole = (fixed or 1) * world
        size = max(1, self.settings.batch_size // whole) * whole
        return Samples(data, indices, size, fixed, self.bench.mask, self.bench.options.memory, self._axes)

    @cached_property
    def _axes(self) -> SampleAxes:
        return SampleAxes.of(self.bench)

    def _features(self) -> tuple[str, ...]:
        """Outputs of layers that both models have."""
        if self.teacher is None:
            return ()
        layers = self.bench.unopened.layers()
        return common_features(self.bench.model, self.teacher, tuple(layer.tensor for layer in layers))

    def _judge(self, trained: Model, trainer: Trainer, samples: Samples) -> ValidationResult:
        evaluator = self.bench.evaluator(Subset(samples.data, samples.indices))
        return ValidationResult(
            samples.data.source,
            len(samples),
            evaluator.reference.accuracy,
            evaluator.evaluate(trained).accuracy,
            trainer.score(samples).accuracy,
        )


def _check_labels(trainer: Trainer, model: Model) -> None:
    """Refuse labels beyond the model's classes before any step."""
    objective = trainer.task.objective
    if not objective.labelled:
        return
    classes = _classes(trainer, objective, model)
    for samples in (trainer.task.samples, trainer.task.validation):
        labels = samples.data.labels(samples.indices)
        if labels is not None and (labels.max() >= classes or labels.min() < 0):
            raise InputError(
                f"its labels go from {labels.min()} to {labels.max()}, the model has {classes} classes",
                where=samples.data.source,
                hint="number the classes from 0 as the model does",
            )


def _classes(trainer: Trainer, objective: TrainingObjective, model: Model) -> int:
    batch = next(trainer.task.validation.in_order()).to(trainer.group.device)
    name, axes = objective.scores[0], objective.axes
    with torch.no_grad():
        scores = axes.sample_first(name, trainer.module.tensors([name], **batch.inputs)[name])
    many = name in objective.positional
    if axes.one or name in axes.tensors:  # scores of nodes or steps, not of the sample
        many = many or scores[0].numel() > max(scores.shape[1:], default=1)
    if scores.dim() < 2 or len(scores) != len(batch) or many:
        raise InputError(
            f"labels are one class per sample, the output {name!r} is {list(scores.shape)}",
            where=model.label,
            hint="@teacher with @task=regression learns from another model instead",
        )
    return int(scores[0].numel())


def _feeds(samples: Samples, module: OnnxModule) -> dict[str, np.ndarray]:
    batch = next(samples.in_order())
    return {name: batch.inputs[name].numpy() for name in module.input_names}


def _checkpoint(
    file: CheckpointFile | None, bench: Workbench, teacher: Model | None, settings: TrainingSettings
) -> Checkpoint | None:
    if file is None:
        return None
    identity = {
        "model": bench.digest,
        "teacher": teacher.sha256 if teacher else None,
        "data": fingerprint(bench.data),  # the same file may be called by another path
        "settings": settings.fixed(),
    }
    checkpoint = Checkpoint(file.path, identity, file.resume)
    checkpoint.check()
    return checkpoint

"""Trainings of one model under changing masks, by the loop that fine-tuning uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from redtest_onnx.errors import InputError
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.training.settings import TrainingSettings

if TYPE_CHECKING:
    from redtest_onnx.bridge import OnnxModule
    from redtest_onnx.training.processes import ProcessGroup


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training reached.

    Attributes:
        loss: mean of the last epoch.
        accuracy: of the best epoch on the validation samples.
    """

    loss: float
    accuracy: float


class MaskedTraining:
    """Trains a module again and again on the same samples.

    Args:
        bench: what the module is made of, and samples with labels; those of the split for judging validate,
            all others train.
        settings: how.
        group: where it computes.

    Attributes:
        module: of the bridge.
        task: what it trains on.

    Raises:
        InputError: no labels, or a model that can't be trained.
    """

    def __init__(self, bench: Workbench, settings: TrainingSettings, group: ProcessGroup) -> None:
        from redtest_onnx.bridge import to_torch
        from redtest_onnx.bridge.statistics import check_statistics
        from redtest_onnx.training.augment import augmentation
        from redtest_onnx.training.axes import SampleAxes
        from redtest_onnx.training.batches import Samples
        from redtest_onnx.training.loop import TrainingTask
        from redtest_onnx.training.objective import make_objective

        model, data, judged = bench.model, bench.data, bench.splits.judge
        if not data.labelled:
            raise InputError(
                "has no labels, which training needs",
                where=data.source,
                hint="add an array `labels`, or prune without training: @method=one-shot",
            )
        check_statistics(bench)
        fixed = bench.fixed_batch
        size = max(1, settings.batch_size // (fixed or 1)) * (fixed or 1)
        self._model, self._settings, self._group = model, settings, group
        axes = SampleAxes.of(bench)
        how = (size, fixed, None, bench.options.memory, axes)
        self.task = TrainingTask(
            Samples(data, np.setdiff1d(np.arange(len(data)), judged), *how),
            Samples(data, judged, *how),
            make_objective(model, settings, labelled=True, teacher=None, features=(), axes=axes),
            None,
            augmentation(model, settings.augment),
        )
        self.module: OnnxModule = to_torch(model, batch_norm=settings.statistics)

    def run(self, number: int, hold: Callable[[], None]) -> TrainingOutcome:
        """Train from the weights the module has now, and leave those of the best epoch.

        Args:
            number: which training it is: each has random numbers of its own.
            hold: called after each step of the optimiser.
        """
        from redtest_onnx.training.loop import Trainer, Watch

        settings = replace(self._settings, seed=self._settings.seed + number)
        trainer = Trainer(
            self.module,
            self._model,
            self.task,
            settings,
            self._group,
            watch=Watch(after_step=lambda module: hold()),
        )
        hold()
        progress = trainer.run(trainer.score(self.task.validation))
        reached = trainer.score(self.task.validation).accuracy
        assert reached is not None
        return TrainingOutcome(float(progress.history[-1]["train_loss"]), reached)

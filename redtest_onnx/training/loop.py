"""The training loop.

All randomness is a function of the seed and the step, so that a run that was killed and resumed takes the
same steps as one that was not.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from redtest_onnx.bridge.device import full_float32
from redtest_onnx.bridge.module import OnnxModule
from redtest_onnx.errors import NegativeVerdictError
from redtest_onnx.graph.model import Model
from redtest_onnx.training.augment import Augment
from redtest_onnx.training.batches import Batch, Samples
from redtest_onnx.training.checkpoint import Checkpoint, Progress, damage_reported
from redtest_onnx.training.objective import TappedModule, TrainingObjective
from redtest_onnx.training.optimisation import make_optimizer, make_schedule, precision_of
from redtest_onnx.training.processes import ProcessGroup
from redtest_onnx.training.settings import TrainingSettings
from redtest_onnx.training.taught import TeacherModule
from redtest_onnx.training.whitened import LEARNING_RATE, WhitenedAdam, prepare_operators

log = logging.getLogger(__name__)

_SAVE_EVERY_S = 60.0


@dataclass(frozen=True)
class Score:
    """A model on samples.

    Attributes:
        loss: mean of the objective.
        accuracy: share of right answers; None without labels or classes.
    """

    loss: float
    accuracy: float | None

    @property
    def value(self) -> float:
        """Larger is better: accuracy first, the loss between equals."""
        return -self.loss if self.accuracy is None else self.accuracy - 1e-6 * math.tanh(self.loss)


@dataclass(frozen=True)
class TrainingTask:
    """What a run trains on.

    Attributes:
        samples: for training.
        validation: for choosing the best epoch; never used for steps.
        objective: the loss.
        teacher: the model to imitate; None without one.
        augment: changes training inputs.
    """

    samples: Samples
    validation: Samples
    objective: TrainingObjective
    teacher: TeacherModule | None
    augment: Augment


Report = Callable[[dict[str, Any]], None]
Note = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Watch:
    """Who is told what happens in a training.

    Attributes:
        report: called with the record of each finished epoch.
        progress: called with work done, all work, and what is being done.
        after_step: called with the module after each step, to hold weights at what they must be.
        resumed: called before the first step with the records of epochs that an interrupted run had finished.
    """

    report: Report | None = None
    progress: Note | None = None
    after_step: Callable[[OnnxModule], None] | None = None
    resumed: Callable[[list[dict[str, Any]]], None] | None = None

    def record(self, record: dict[str, Any]) -> None:
        """Hand on the record of an epoch."""
        if self.report is not None:
            self.report(record)

    def note(self, done: int, total: int, what: str) -> None:
        """Hand on progress."""
        if self.progress is not None:
            self.progress(done, total, what)


class Trainer:
    """Trains a module.

    Args:
        module: from `to_torch`; on return it holds the weights of the best epoch.
        model: the graph it was made from.
        task: samples and loss.
        settings: see `TrainingSettings`.
        group: the processes that train together.
        checkpoint: where the state is kept; None to keep none.
        watch: who is told what happens.
    """

    def __init__(
        self,
        module: OnnxModule,
        model: Model,
        task: TrainingTask,
        settings: TrainingSettings,
        group: ProcessGroup,
        *,
        checkpoint: Checkpoint | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.module = _placed(module, group)
        self.task = task
        self.settings = settings
        self.group = group
        self.checkpoint = checkpoint if group.leads else None
        self.watch = watch or Watch()
        white = settings.optimizer == "whitened"  # freezes weights, which a wrapper must know
        operators = (
            prepare_operators(self.module, model, task.samples, settings.seed, group.device) if white else []
        )
        self.student = group.wrap(TappedModule(self.module, task.objective.names, task.objective.axes))
        self.teacher = task.teacher
        if self.teacher is not None:
            _placed(self.teacher.module, group).requires_grad_(False)
        self.steps = settings.epochs * task.samples.steps
        self.optimizer = (
            WhitenedAdam(self.module, operators, settings.lr or LEARNING_RATE)
            if white
            else make_optimizer(self.module, model, settings)
        )
        self.schedule = make_schedule(self.optimizer, settings, self.steps)
        self.low = precision_of(settings.precision, group.device)
        self.scaler = torch.amp.GradScaler(group.device.type, enabled=self.low is torch.float16)
        self.progress = Progress()
        self._saved = time.monotonic()

    def run(self, start: Score) -> Progress:
        """Train until the last epoch, or until validation stops improving.

        Args:
            start: validation of the weights as they are, which are kept if no epoch is better.

        Raises:
            NegativeVerdictError: the loss is no longer finite.
        """
        self.progress.best_score = start.value
        self.progress.best = _copy(self.module.state_dict())
        self._resume()
        state = self.progress
        while state.epoch < self.settings.epochs and not self._is_stuck():
            self._train_epoch()
            self._finish_epoch()
        self.module.load_state_dict(self.group.agree(_on_cpu(state.best)))
        return state

    def score(self, samples: Samples) -> Score:
        """Loss and accuracy in `eval()`; all processes take part and get the same."""
        objective = self.task.objective
        tapped = TappedModule(self.module, objective.names, objective.axes)
        self.group.share_buffers(self.module)
        self.module.eval()
        loss, right, seen = 0.0, 0, 0
        with torch.no_grad(), full_float32():
            for batch in samples.in_order((self.group.rank, self.group.world)):
                batch = batch.to(self.group.device)
                values = _cut(tapped(**batch.inputs), batch)
                labels = None if batch.labels is None else batch.labels[: batch.count]
                taught = None if self.teacher is None else _cut(self.teacher(**batch.inputs), batch)
                counted = None if batch.counted is None else batch.counted[: batch.count]
                loss += float(objective.loss(values, labels, taught, counted)) * batch.count
                if labels is not None and objective.labelled:
                    right += objective.right(values, labels, batch.count)
                seen += batch.count
        all_loss, all_right, all_seen = self.group.total((loss, right, seen))
        return Score(all_loss / all_seen, all_right / all_seen if objective.labelled else None)

    def _train_epoch(self) -> None:
        state, task = self.progress, self.task
        self.module.train()
        batches = task.samples.shuffled(
            self.settings.seed, state.epoch, state.step, (self.group.rank, self.group.world)
        )
        for runs in batches:
            total = state.epoch * task.samples.steps + state.step
            self.watch.note(total, self.steps, f"training, epoch {state.epoch + 1} of {self.settings.epochs}")
            torch.manual_seed((self.settings.seed * self.group.world + self.group.rank) * 2**32 + total)
            state.loss += self._step(runs)
            state.step += 1
            self._save(every=_SAVE_EVERY_S)

    def _step(self, parts: Sequence[Batch]) -> float:
        """One update, for a batch in as many runs as it takes; the loss it was made for."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for k, part in enumerate(part.to(self.group.device) for part in parts):
            inputs = self.task.augment(part.inputs)
            with self._unsynchronised(k < len(parts) - 1), self._autocast():
                taught = None
                if self.teacher is not None:
                    with torch.no_grad():
                        taught = self.teacher(**inputs)
                values = self.student(**inputs)
                error = self.task.objective.loss(values, part.labels, taught, part.counted) / len(parts)
                self.scaler.scale(error).backward()
            loss += float(error.detach())
        if not math.isfinite(loss):
            raise self._diverged(f"the loss became {loss}")
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        if self.watch.after_step is not None:
            self.watch.after_step(self.module)
        return loss

    def _diverged(self, how: str) -> NegativeVerdictError:
        return NegativeVerdictError(
            f"{how} in epoch {self.progress.epoch + 1}, step {self.progress.step + 1}",
            hint="a lower @lr, or a longer @warmup",
        )

    def _finish_epoch(self) -> None:
        state = self.progress
        weights = self.module.state_dict()
        if lost := [name for name, value in weights.items() if not value.isfinite().all()]:
            raise self._diverged(f"{lost[0]} was no longer finite")
        score = self.score(self.task.validation)
        if self.group.leads:
            record = {
                "epoch": state.epoch + 1,
                "lr": self.schedule.get_last_lr()[0],
                "train_loss": state.loss / max(state.step, 1),
                "validation_loss": score.loss,
                "validation_accuracy": score.accuracy,
            }
            state.history.append(record)
            if score.value > state.best_score:
                state.best_epoch, state.best_score = state.epoch, score.value
                state.best = _copy(weights)
            self.watch.record(record)
        state.best_epoch = self.group.agree(state.best_epoch)
        state.epoch, state.step, state.loss = state.epoch + 1, 0, 0.0
        self._save(every=0.0)

    def _is_stuck(self) -> bool:
        patience = self.settings.patience
        return patience is not None and self.progress.epoch - 1 - self.progress.best_epoch >= patience

    def _save(self, *, every: float) -> None:
        if self.checkpoint is not None and time.monotonic() - self._saved >= every:
            parts = {
                "module": self.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
            self.checkpoint.save(self.progress, parts)
            self._saved = time.monotonic()

    def _resume(self) -> None:
        found = self.group.agree(self.checkpoint.load() if self.checkpoint else None)
        if found is None:
            return
        self.progress, parts = found
        path = self.checkpoint.path if self.checkpoint else Path()
        with damage_reported(path):
            if self.progress.best:
                self.module.load_state_dict(self.progress.best)
            self.module.load_state_dict(parts["module"])
            self.optimizer.load_state_dict(parts["optimizer"])
            self.schedule.load_state_dict(parts["schedule"])
            self.scaler.load_state_dict(parts["scaler"])
        if self.watch.resumed is not None and self.group.leads:
            self.watch.resumed(self.progress.history)
        log.info("resumed in epoch %d, step %d", self.progress.epoch + 1, self.progress.step + 1)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(
            self.group.device.type, self.low or torch.bfloat16, enabled=self.low is not None
        )

    def _unsynchronised(self, wanted: bool) -> AbstractContextManager[Any]:
        """Without exchange of gradients, for all parts of a batch but the last."""
        if wanted and isinstance(self.student, nn.parallel.DistributedDataParallel):
            return self.student.no_sync()
        return nullcontext()


def _placed(module: OnnxModule, group: ProcessGroup) -> OnnxModule:
    """The module on its device, with channels last: convolutions train a fifth to a quarter faster so."""
    module.to(group.device)
    # The stubs of torch know this form only together with a device and a type.
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


def _cut(values: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """The values without what a fixed batch was filled up with."""
    if batch.count == len(batch):
        return values
    return {
        name: value[: batch.count] if len(value) == len(batch) else value for name, value in values.items()
    }


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def _on_cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in state.items()}

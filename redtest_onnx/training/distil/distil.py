"""Distil a pruned model from its original: the original teaches on unlabelled samples.

Least squares fits features one operator at a time; which errors matter for the output only the output can
say. So a short gradient descent behind it, in coordinates in which it can't tear down what was fitted, goes
on where the closed form is at its end (docs/depth-pruning.md has figures).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from redtest_onnx.arrays import Indices
from redtest_onnx.bridge.device import torch_threads
from redtest_onnx.bridge.write_back import from_torch
from redtest_onnx.data.batching import batches
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.signature import fixed_batch
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.training.augment import image_inputs
from redtest_onnx.training.axes import POOLED_SAMPLES, pooled_variance
from redtest_onnx.training.distil.loss import DistilLoss, DistilTarget, channel_axis
from redtest_onnx.training.distil.samples import DistilSamples
from redtest_onnx.training.distil.settings import DistilSettings
from redtest_onnx.training.distil.student import Student
from redtest_onnx.training.distil.teacher import Teacher
from redtest_onnx.training.optimisation import learning_rate

Note = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Distillation:
    """A distilled model.

    Attributes:
        model: the student with trained weights; as it was where they are no longer finite.
        steps: steps that were taken.
        loss_before: on samples that were not learnt from, before.
        loss_after: likewise, after. Answers often become more alike while this loss grows: it weighs how sure
            the answers are, too. What is kept is decided on the answers.
        seconds: wall time.
    """

    model: Model
    steps: int
    loss_before: float
    loss_after: float
    seconds: float


def distil(
    original: Model,
    pruned: Model,
    samples: DistilSamples,
    targets: Sequence[DistilTarget],
    settings: DistilSettings | None = None,
    options: RunOptions | None = None,
    note: Note | None = None,
) -> Distillation:
    """Train a pruned model to give what its original gives, without labels.

    The same numbers come out on one machine with one seed, unless `settings.seconds` cuts it short.

    Args:
        original: the teacher.
        pruned: the student, repaired as far as least squares does.
        samples: what to learn from and what to check on.
        targets: tensors of both that are compared.
        settings: see `DistilSettings`.
        options: device and threads.
        note: called with steps done, all steps, and what is done.

    Raises:
        InputError: the student holds operators that PyTorch can't run or no weights to train, nothing can
            be compared, or there are no images that could be mirrored or shifted.
    """
    settings, options = settings or DistilSettings(), options or RunOptions()
    if not targets:
        raise InputError(
            "no tensor of the pruned model can be compared with the original's", where=pruned.label
        )
    begin = perf_counter()
    loss = DistilLoss(targets, settings.temperature, settings.feature_weight, samples.axes)
    run = _Run(original, pruned, samples, loss)
    with torch_threads(options.threads):
        run.prepare(settings, options)
        if not run.student.operators:
            raise InputError(
                "no operator of the pruned model has weights that can be trained",
                where=pruned.label,
                hint="quantised and computed weights stay as they are: @repair=none",
            )
        before = run.check_loss()
        steps = run.train(begin, note or (lambda done, total, what: None))
        after = run.check_loss()
    model = from_torch(run.student.write(), pruned) if np.isfinite(after) else pruned
    return Distillation(model, steps, before, after, perf_counter() - begin)


class _Run:
    """One distillation and its state."""

    student: Student

    def __init__(self, original: Model, pruned: Model, samples: DistilSamples, loss: DistilLoss) -> None:
        self._original, self._pruned = original, pruned
        self._fixed = fixed_batch(pruned)
        self._samples, self._loss = replace(samples, fixed=self._fixed), loss

    def prepare(self, settings: DistilSettings, options: RunOptions) -> None:
        self._settings = settings
        self._size = self._fixed or settings.batch_size
        fit = self._samples.fit
        rng = np.random.default_rng(settings.seed)
        chosen = np.sort(rng.permutation(len(fit))[: settings.moment_samples])
        self.student = Student(
            *(self._pruned, self._loss.names, self._inputs(fit[chosen])),
            *(settings, self._samples.mask, self._samples.axes),
        )
        self._teacher, self._checker = (
            Teacher(self._original, self._loss.names, options, count, self._samples.axes)
            for count in (len(fit) * (2 if settings.mirror else 1), len(self._samples.check))
        )
        if self._samples.axes.one:
            self._loss = replace(self._loss, variances=self._variances())

    def _variances(self) -> dict[str, float]:
        """Variances over several samples: the loss of a run of one sample has no others."""
        fit = self._samples.fit[:POOLED_SAMPLES]
        runs = [
            self._teacher.answers(self._samples.data.inputs(fit[[row]]), np.array([row]))
            for row in range(len(fit))
        ]
        return {
            name: pooled_variance([run[name] for run in runs], channel_axis(runs[0][name]))
            for name in self._loss.names
        }

    def train(self, begin: float, note: Note) -> int:
        """All steps; returns how many."""
        settings = self._settings
        optimizer = torch.optim.Adam(
            (p for p in self.student.parameters() if p.requires_grad), settings.lr, betas=(0.9, 0.98)
        )
        share = learning_rate("cosine", settings.warmup, settings.steps)
        for step, (feeds, rows) in enumerate(self._draw()):
            elapsed = perf_counter() - begin
            if settings.seconds is not None and elapsed > settings.seconds:
                return step
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * share(schedule_position(step, settings, elapsed))
            counted = self._samples.counted(feeds)
            answers = self._teacher.answers(feeds, rows, counted)
            optimizer.zero_grad(set_to_none=True)
            loss = self._loss(self._forward(feeds), answers, counted)
            loss.backward()
            optimizer.step()
            note(step + 1, settings.steps, "distilling")
        return settings.steps

    @torch.no_grad()
    def check_loss(self) -> float:
        """Mean loss on the samples that are not learnt from."""
        check = self._samples.check
        total, seen = 0.0, 0
        for rows, count in batches(np.arange(len(check)), self._size, fixed=self._fixed is not None):
            feeds = self._samples.data.inputs(check[rows])
            counted = self._samples.counted(feeds)
            answers = self._checker.answers(feeds, rows, counted)
            student = self._forward(feeds)
            ours, theirs = ({name: v[:count] for name, v in values.items()} for values in (student, answers))
            total += float(self._loss(ours, theirs, None if counted is None else counted[:count])) * count
            seen += count
        return total / max(seen, 1)

    def _forward(self, feeds: dict[str, npt.NDArray[np.generic]]) -> dict[str, Tensor]:
        inputs = {name: _tensor(array) for name, array in feeds.items()}
        low = self._settings.precision == "bfloat16"
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            found: dict[str, Tensor] = self.student(**inputs)
        return found

    def _inputs(self, indices: Indices) -> Iterator[dict[str, Tensor]]:
        for chosen, _ in batches(indices, self._size, fixed=self._fixed is not None):
            yield {name: _tensor(array) for name, array in self._samples.data.inputs(chosen).items()}

    def _draw(self) -> Iterator[tuple[dict[str, npt.NDArray[np.generic]], Indices | None]]:
        """Inputs of each step, and which row of the teacher's answers belongs to them."""
        settings, fit = self._settings, self._samples.fit
        size = self._fixed or min(settings.batch_size, len(fit))
        rng = np.random.default_rng(settings.seed)
        images = image_inputs(self._pruned) if settings.mirror or settings.crop else {}
        for rows in self._samples.drawn(rng, size, settings.steps):
            feeds = dict(self._samples.data.inputs(fit[rows]))
            mirrored = rng.random(size) < 0.5 if settings.mirror else np.zeros(size, bool)
            shift = rng.integers(-1, 2, 2) if settings.crop else np.zeros(2, np.int64)
            for name, channels_first in images.items():
                feeds[name] = moved_images(feeds[name], mirrored, shift, channels_first)
            yield feeds, None if shift.any() else rows + len(fit) * mirrored


def schedule_position(step: int, settings: DistilSettings, elapsed: float) -> int:
    """How far the schedule of the learning rate is: by steps, or by time where that will end first.

    So the learning rate has fallen when the time is over, wherever that cuts the training.

    Args:
        step: steps that were taken.
        settings: how many there may be, and for how long.
        elapsed: seconds since the beginning.
    """
    if settings.seconds is None:
        return step
    return max(step, min(settings.steps, int(settings.steps * elapsed / settings.seconds)))


def moved_images(
    images: npt.NDArray[np.generic],
    mirrored: npt.NDArray[np.bool_],
    shift: npt.NDArray[np.int64],
    channels_first: bool,
) -> npt.NDArray[np.generic]:
    """Some images mirrored left to right, and all moved; what comes in is zero.

    Args:
        images: [n, C, H, W], or [n, H, W, C].
        mirrored: [n] which ones.
        shift: eighths of the rows and of the columns.
        channels_first: which of the two layouts.
    """
    before = (slice(None),) * (2 if channels_first else 1)
    sizes = images.shape[len(before) : len(before) + 2]
    images = np.where(mirrored[:, None, None, None], np.flip(images, len(before) + 1), images)
    by = shift * np.array(sizes) // 8
    if not by.any():
        return np.ascontiguousarray(images)
    moved = np.zeros_like(images)
    source = tuple(slice(max(-b, 0), size - max(b, 0)) for b, size in zip(by, sizes, strict=True))
    target = tuple(slice(max(b, 0), size - max(-b, 0)) for b, size in zip(by, sizes, strict=True))
    moved[(*before, *target)] = images[(*before, *source)]
    return moved


def _tensor(array: npt.NDArray[np.generic]) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor

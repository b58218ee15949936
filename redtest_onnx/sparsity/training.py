"""Training of one iteration: supervised, with masked weights held at zero after every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from redtest_onnx.errors import InputError
from redtest_onnx.runtime.batching import Indices
from redtest_onnx.runtime.data import Dataset

if TYPE_CHECKING:
    from torch import Tensor

    from redtest_onnx.bridge import OnnxModule

_EVALUATED = 256


@dataclass(frozen=True)
class TrainSettings:
    """SGD with momentum on cross-entropy, its rate falling along a cosine.

    Attributes:
        epochs: passes over the samples.
        learning_rate: at the start.
        batch: samples in a step.
        momentum: of SGD.
        weight_decay: on all parameters.
        seed: of the order of samples.
    """

    epochs: int = 10
    learning_rate: float = 0.05
    batch: int = 100
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0


def train(
    module: OnnxModule,
    data: Dataset,
    indices: Indices,
    settings: TrainSettings,
    after_step: Callable[[], None],
) -> float:
    """Train a module in place.

    Args:
        module: from the bridge.
        data: samples with labels.
        indices: which of them.
        settings: how.
        after_step: called after every step of the optimiser.

    Returns:
        Mean loss of the last epoch.

    Raises:
        InputError: the loss is no longer finite.
    """
    import torch

    rng = np.random.default_rng(settings.seed)
    optimizer = torch.optim.SGD(
        module.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    size = min(settings.batch, len(indices))
    steps = settings.epochs * (len(indices) // size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    module.train()
    mean = float("nan")
    for _ in range(settings.epochs):
        losses = []
        order = rng.permutation(indices)
        # An incomplete batch would disturb the statistics of batch normalisation.
        for start in range(0, len(order) - size + 1, size):
            loss = _loss(module, data, order[start : start + size])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            after_step()
            losses.append(float(loss.detach()))
        mean = float(np.mean(losses))
        if not np.isfinite(mean):
            raise InputError("the loss is no longer finite", hint="lower the learning rate")
    module.eval()
    return mean


def accuracy(module: OnnxModule, data: Dataset, indices: Indices) -> float:
    """Share of right answers of a module in `eval()`."""
    import torch

    right = 0
    with torch.no_grad():
        for start in range(0, len(indices), _EVALUATED):
            chosen = indices[start : start + _EVALUATED]
            scores = _scores(module, data, chosen)
            right += int((scores.argmax(1).numpy() == data.labels(chosen)).sum())
    return right / len(indices)


def _loss(module: OnnxModule, data: Dataset, indices: Indices) -> Tensor:
    import torch

    labels = data.labels(indices)
    assert labels is not None
    scores = _scores(module, data, indices)
    return torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels))


def _scores(module: OnnxModule, data: Dataset, indices: Indices) -> Tensor:
    """[n, classes] the first output."""
    import torch

    feeds = {name: torch.from_numpy(values) for name, values in data.inputs(indices).items()}
    made = module(**feeds)
    first: Tensor = made[0] if isinstance(made, tuple) else made
    return first.reshape(len(indices), -1)

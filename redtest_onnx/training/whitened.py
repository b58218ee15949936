"""Adam in whitened coordinates, as an optimiser of the weights themselves.

Its steps are those of Adam on the coordinates V of `distil.whitening`, where W = W0 + V R: the gradient is
carried over to V, and the step of V back to W. So training goes on where a repair by least squares ended;
steps that scale each weight by itself tear that down first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from redtest_onnx.bridge.module import OnnxModule
from redtest_onnx.graph.model import Model
from redtest_onnx.training.batches import Samples
from redtest_onnx.training.distil.settings import DistilSettings
from redtest_onnx.training.distil.student import PlacedOperator, trainable_operators, whitened_operators
from redtest_onnx.training.objective import TrainingObjective
from redtest_onnx.training.settings import TrainingSettings

LEARNING_RATE = DistilSettings().lr
_BETAS = (0.9, 0.98)
_EPS = 1e-8


class WhitenedAdam(Optimizer):
    """Adam on whitened coordinates of a module's linear operators; its other weights are frozen.

    Args:
        module: the module.
        operators: from `prepare_operators`.
        lr: learning rate of the coordinates.
    """

    def __init__(self, module: nn.Module, operators: Sequence[PlacedOperator], lr: float) -> None:
        known = dict(module.named_parameters())
        self._trained = [
            (item.operator, known[item.weight], known.get(item.bias or "")) for item in operators
        ]
        weights = [part for _, *parts in self._trained for part in parts if part is not None]
        super().__init__(weights, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of Adam (arXiv 1412.6980), without weight decay.

        Args:
            closure: computes loss and gradients anew, as for every optimiser; rarely needed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rate = float(self.param_groups[0]["lr"])
        for operator, weight, bias in self._trained:
            gradients = (weight.grad, None if bias is None else bias.grad)
            if all(gradient is None for gradient in gradients):
                continue
            operator.coordinates.copy_(-rate * self._direction(weight, operator.gradient(*gradients)))
            added, constant = operator.change()
            operator.coordinates.zero_()
            weight.add_(added)
            if bias is not None and constant is not None:
                bias.add_(constant)
        return loss

    def _direction(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """The mean of gradients over the root of the mean of their squares."""
        state = self.state[weight]
        if not state:
            state.update(step=0, mean=torch.zeros_like(gradient), square=torch.zeros_like(gradient))
        state["step"] += 1
        mean, square = state["mean"], state["square"]
        mean.mul_(_BETAS[0]).add_(gradient, alpha=1 - _BETAS[0])
        square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        corrected = [1 - beta ** state["step"] for beta in _BETAS]
        return mean / corrected[0] / ((square / corrected[1]).sqrt() + _EPS)


def prepare_operators(
    module: OnnxModule, model: Model, samples: Samples, seed: int, device: torch.device
) -> list[PlacedOperator]:
    """Whitened coordinates of a module's linear operators; all other weights of the module are frozen.

    Args:
        module: on its device.
        model: the graph it was made from.
        samples: the second moments are taken from the first of them.
        seed: of the rows that are drawn.
        device: of the module.
    """
    settings = DistilSettings(seed=seed)
    enough = -(-settings.moment_samples // (samples.fixed or samples.batch_size))

    def inputs() -> Iterator[dict[str, Tensor]]:
        for batch in islice(samples.in_order(), enough):
            yield batch.to(device).inputs

    training = module.training
    found = whitened_operators(module.eval(), model, inputs(), settings, samples.mask, samples.axes)
    module.train(training)
    trained = {name for item in found for name in (item.weight, item.bias)}
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in trained)
    return found


def settings_for(objective: TrainingObjective, model: Model, settings: TrainingSettings) -> TrainingSettings:
    """Settings with the optimiser of those who learn from a teacher alone, where none is asked for.

    Args:
        objective: what is minimised.
        model: what is trained.
        settings: as they were given.
    """
    alone = objective.taught and not objective.labelled
    if settings.optimizer == "auto" and alone and trainable_operators(model):
        return replace(settings, optimizer="whitened")
    return settings

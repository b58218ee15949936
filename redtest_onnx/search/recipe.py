"""How candidates are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from redtest_onnx.checks import Between, Natural, Positive, Share, check_settings


@dataclass(frozen=True)
class Recipe:
    """How a candidate is trained: SGD with momentum and a cosine schedule, images shifted by a pixel.

    Attributes:
        epochs: passes over the training images; 0 leaves the network as it was initialised.
        batch: images per step.
        learning_rate: at the start.
        momentum: Nesterov momentum.
        weight_decay: on all parameters.
    """

    epochs: Natural = 12
    batch: Positive = 50
    learning_rate: Annotated[float, Between(0)] = 0.1
    momentum: Share = 0.9
    weight_decay: Annotated[float, Between(0)] = 5e-4

    def __post_init__(self) -> None:
        check_settings(self)

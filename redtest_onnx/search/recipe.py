"""How candidates are trained."""

from __future__ import annotations

from dataclasses import dataclass


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

    epochs: int = 12
    batch: int = 50
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4

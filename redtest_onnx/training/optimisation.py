"""Optimiser, learning rate and numeric precision of a run."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from redtest_onnx.errors import RuntimeUnavailableError
from redtest_onnx.graph.model import Model
from redtest_onnx.training.settings import Precision, Schedule, TrainingSettings

_NORMALISATIONS = frozenset(
    {
        "LayerNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)


def make_optimizer(module: nn.Module, model: Model, settings: TrainingSettings) -> Optimizer:
    """The optimiser; weights of two and more axes decay, biases and scales don't.

    Args:
        module: what is trained.
        model: the graph it was made from.
        settings: see `TrainingSettings`.
    """
    weights = [p for p in module.parameters() if p.requires_grad]
    adam = settings.optimizer == "adamw" or (
        settings.optimizer == "auto" and any(node.op_type in _NORMALISATIONS for node in model.graph.node)
    )
    decay = settings.weight_decay if settings.weight_decay is not None else (0.01 if adam else 5e-4)
    groups = [
        {"params": [p for p in weights if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in weights if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if adam:
        return AdamW(groups, settings.lr or 5e-4)
    return SGD(groups, settings.lr or 0.02, momentum=settings.momentum, nesterov=settings.momentum > 0)


def make_schedule(optimizer: Optimizer, settings: TrainingSettings, steps: int) -> LambdaLR:
    """The learning rate over `steps` steps."""
    return LambdaLR(optimizer, learning_rate(settings.schedule, settings.warmup, steps))


def learning_rate(kind: Schedule, warmup: float, steps: int) -> Callable[[int], float]:
    """The share of the highest learning rate by step: a line up, then what `kind` says."""
    rising = min(math.ceil(warmup * steps), steps - 1)

    def share(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        done = (step - rising) / max(steps - rising, 1)
        if kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        if kind == "steps":
            return 0.1 ** ((done >= 0.5) + (done >= 0.75))
        return 1.0

    return share


def precision_of(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The type of the forward pass; None for the model's own.

    Raises:
        RuntimeUnavailableError: the device has no such arithmetic.
    """
    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else None
    if precision == "float16" and device.type == "cpu":
        raise RuntimeUnavailableError("@precision=float16 needs a GPU", hint="@precision=bfloat16")
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]

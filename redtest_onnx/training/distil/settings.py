"""How a pruned model is distilled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from redtest_onnx.errors import InputError

DistilPrecision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class DistilSettings:
    """What a distillation without labels depends on, beside models and data.

    Attributes:
        steps: of the optimiser (Adam).
        batch_size: samples per step.
        lr: highest learning rate, of whitened coordinates.
        warmup: share of the steps in which the learning rate rises; behind it falls a half cosine to 0.
        temperature: T, softens the distributions that are compared (Hinton et al., arXiv 1503.02531).
        feature_weight: weight of the error at the ends of stages beside that of the outputs.
        ridge: what is added to the diagonal of each operator's second moments, as a share of their mean.
        moment_samples: samples that the second moments are taken from.
        rows_per_unknown: rows of them per size of an operator's input.
        mirror: mirror half of the images; right where a mirrored image means the same.
        crop: shift images by up to an eighth of their size.
        seconds: time after which no further step begins; None for all steps.
        precision: of the student's forward pass.
        seed: of every random choice.
    """

    steps: int = 256
    batch_size: int = 64
    lr: float = 3e-4
    warmup: float = 0.1
    temperature: float = 2.0
    feature_weight: float = 1.0
    ridge: float = 0.01
    moment_samples: int = 192
    rows_per_unknown: int = 30
    mirror: bool = False
    crop: bool = False
    seconds: float | None = None
    precision: DistilPrecision = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "lr", "temperature", "moment_samples", "rows_per_unknown"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be positive")
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup is {self.warmup}; it must lie between 0 and 1")
        if self.seconds is not None and not self.seconds > 0:
            raise InputError(f"seconds is {self.seconds}; it must be positive")
        if self.precision not in ("float32", "bfloat16"):
            raise InputError(f"precision is {self.precision!r}; it must be 'float32' or 'bfloat16'")

"""How a pruned model is distilled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from redtest_onnx.checks import Between, Natural, Positive, check_settings

DistilPrecision = Literal["float32", "bfloat16"]
_Above0 = Annotated[float, Between(0, above=True)]


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
        seconds: time after which no further step begins, preparation included; None for all steps.
        unasked_macs: multiply-accumulates up to which a repair "auto" trains although no time was given: at
            the default some three minutes of one core.
        precision: of the student's forward pass.
        seed: random seed.
    """

    steps: Positive = 256
    batch_size: Positive = 64
    lr: _Above0 = 3e-4
    warmup: Annotated[float, Between(0, 0.99)] = 0.1
    temperature: _Above0 = 2.0
    feature_weight: Annotated[float, Between(0)] = 1.0
    ridge: _Above0 = 0.01
    moment_samples: Positive = 192
    rows_per_unknown: Positive = 30
    mirror: bool = False
    crop: bool = False
    seconds: _Above0 | None = None
    unasked_macs: Annotated[float, Between(0)] = 5e12
    precision: DistilPrecision = "float32"
    seed: Natural = 0

    def __post_init__(self) -> None:
        check_settings(self)

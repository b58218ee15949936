"""Settings and results of iterative pruning."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from redtest_onnx.checks import Positive, check_settings
from redtest_onnx.training.settings import TrainingSettings
from redtest_onnx.weight_sparsity.masks import Mask, PruningRule, Scope
from redtest_onnx.weight_sparsity.measure import PAIRS, Pair

Method = Literal["sap", "lottery", "one-shot"]


@dataclass(frozen=True)
class LoopSettings:
    """How weights are pruned over several trainings.

    Attributes:
        method: "sap" and "lottery" rank the weights that the current iteration trained, "one-shot" always
            those of the first, dense training.
        scope: what a group is.
        rule: how many of a group go: `Bound` for SAP, `Amount` for the others.
        iterations: prunings; there is one training more.
        rewind: start each training from the weights of the model, not from the last training's.
        training: of each iteration.
        pairs: exponents whose PQ Index is recorded.
    """

    method: Method
    scope: Scope
    rule: PruningRule
    iterations: Positive
    rewind: bool = True
    training: TrainingSettings = field(default_factory=TrainingSettings)
    pairs: tuple[Pair, ...] = PAIRS

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Iteration:
    """One training under a mask.

    Attributes:
        number: 0 for the dense training.
        kept: weights that are left in the pruned tensors.
        weights: weights of these tensors.
        pq_index: PQ Index of the weights that are left, per pair of exponents and per scope: of all together
            for "global", the mean over groups for "layer" and "neuron"; NaN where undefined.
        accuracy: on the validation samples.
        loss: mean of the last epoch.
        seconds: time it took.
    """

    number: int
    kept: int
    weights: int
    pq_index: tuple[dict[str, float], ...]
    accuracy: float
    loss: float
    seconds: float


@dataclass(frozen=True)
class IterationState:
    """What an iteration left.

    Attributes:
        record: its figures.
        masks: of each pruned tensor.
        state: the module's state dict.
        source: the file that it was read from; None if it was trained just now.
    """

    record: Iteration
    masks: list[Mask]
    state: dict[str, Any]
    source: Path | None = None

"""How far a student's tensors are from its teacher's, by what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from redtest_onnx.training.axes import SampleAxes
from redtest_onnx.training.positions import only_counted

TensorKind = Literal["classes", "embedding", "values", "feature"]

_TINY = 1e-12


@dataclass(frozen=True)
class DistilTarget:
    """A tensor that student and teacher both compute.

    Attributes:
        name: of the tensor; of class scores the logits, in front of a softmax.
        kind: "classes" compares distributions over `axis`, "embedding" directions of vectors, "values"
            numbers, "feature" values inside the model.
        axis: of the classes or of the embedding, as the file has it.
    """

    name: str
    kind: TensorKind
    axis: int = -1


@dataclass(frozen=True)
class DistilLoss:
    """The loss: mean over the outputs, plus a share of the mean over features.

    Attributes:
        targets: what is compared.
        temperature: T of the softened distributions; their divergence counts T^2 (arXiv 1503.02531).
        feature_weight: weight of the features.
        axes: of the models.
        variances: of the teacher's values about the mean of their channel, where a run is one sample and
            can't tell them.
    """

    targets: Sequence[DistilTarget]
    temperature: float
    feature_weight: float
    axes: SampleAxes = field(default_factory=SampleAxes)
    variances: Mapping[str, float] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors that are compared."""
        return tuple(dict.fromkeys(target.name for target in self.targets))

    def __call__(
        self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], counted: Tensor | None = None
    ) -> Tensor:
        """A scalar, float32.

        Args:
            student: values [n, ...] by name, samples in front.
            teacher: likewise.
            counted: [n, positions] which positions of sequences count; None for all.
        """
        outputs: list[Tensor] = []
        features: list[Tensor] = []
        for target in self.targets:
            ours, theirs = (
                only_counted(values[target.name].float(), counted) for values in (student, teacher)
            )
            axis = self.axes.moved(target.name, target.axis, ours.dim())
            if target.kind == "classes":
                outputs.append(divergence(ours, theirs, axis, self.temperature))
            elif target.kind == "embedding":
                cosines = functional.cosine_similarity(ours, theirs, dim=axis, eps=_TINY)
                outputs.append(1 - cosines.mean())
            else:
                part = features if target.kind == "feature" else outputs
                part.append(feature_error(ours, theirs, self.variances.get(target.name)))
        total = torch.stack(outputs).mean() if outputs else torch.zeros(())
        if features and self.feature_weight:
            total = total + self.feature_weight * torch.stack(features).mean()
        return total


def divergence(student: Tensor, teacher: Tensor, axis: int, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of the distributions softened by T, mean over samples and positions."""
    ours = functional.log_softmax(student / temperature, axis)
    theirs = functional.log_softmax(teacher / temperature, axis)
    positions = ours.numel() / ours.shape[axis]
    return functional.kl_div(ours, theirs, reduction="sum", log_target=True) / positions * temperature**2


def feature_error(student: Tensor, teacher: Tensor, variance: float | None = None) -> Tensor:
    """Mean squared error over the variance of the teacher's values about the mean of their channel.

    Args:
        student: values [n, ...].
        teacher: likewise.
        variance: the variance, if it is known from more samples.
    """
    if variance is not None:
        return (student - teacher).square().mean() / max(variance, _TINY)
    channel = channel_axis(teacher)
    others = [axis for axis in range(teacher.dim()) if axis != channel]
    spread = (teacher - teacher.mean(dim=others, keepdim=True)).square().mean()
    return (student - teacher).square().mean() / spread.clamp_min(_TINY)


def channel_axis(values: Tensor) -> int:
    """The axis of channels: the second one of images [n, C, ...], the last one of sequences and vectors."""
    return 1 if values.dim() > 3 else values.dim() - 1

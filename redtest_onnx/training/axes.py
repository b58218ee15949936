"""Where a model has its samples: in front as a rule, elsewhere in time-first networks, nowhere in graphs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from redtest_onnx.graph.signature import batch_axes, takes_one_sample
from redtest_onnx.runtime.shapes import WHOLE
from redtest_onnx.runtime.workbench import Workbench

POOLED_SAMPLES = 64
"""Samples that a variance is taken over where a run takes one of them."""


@dataclass(frozen=True)
class SampleAxes:
    """The axes that hold the samples.

    Attributes:
        inputs: of each input; None for one that all samples share. Inputs that are not named have them in
            front.
        tensors: of tensors that have them elsewhere than in front; `WHOLE` where all of a tensor is one
            sample's.
        one: whether a run takes one sample, which has no axis.
    """

    inputs: Mapping[str, int | None] = field(default_factory=dict)
    tensors: Mapping[str, int] = field(default_factory=dict)
    one: bool = False

    @classmethod
    def of(cls, bench: Workbench) -> SampleAxes:
        """The axes of a workbench's model.

        Raises:
            InputError: the model doesn't run on the data.
        """
        inputs, one = batch_axes(bench.model), takes_one_sample(bench.model)
        if not one and not any(inputs.values()):
            # What such a model makes along other axes on the way back to the front needs no turning.
            return cls(inputs)
        return cls(inputs, {k: axis for k, axis in bench.resolved.batch_axes.items() if axis}, one)

    def of_input(self, name: str) -> int | None:
        """The axis of an input; None where all samples share it, or where a run is one sample."""
        return self.inputs.get(name, 0)

    def sample_first(self, name: str, value: Tensor) -> Tensor:
        """A tensor with its samples in front, [n, ...]; as it is where their axis is unknown, too."""
        axis = self.tensors.get(name, 0)
        if axis == WHOLE:
            return value[None]
        return value.movedim(axis, 0) if 0 < axis < value.dim() else value

    def samples_first(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by name with their samples in front."""
        return {name: self.sample_first(name, value) for name, value in values.items()}

    def moved(self, name: str, axis: int, rank: int) -> int:
        """Where another axis of a tensor lies once its samples are in front.

        Args:
            name: of the tensor.
            axis: as the file has it; may count from the end.
            rank: of the tensor with its samples in front.
        """
        samples = self.tensors.get(name, 0)
        if samples == WHOLE:
            return axis + 1 if axis >= 0 else axis
        if samples == 0 or samples >= rank:
            return axis
        axis %= rank
        return 0 if axis == samples else axis + (axis < samples)


def pooled_variance(runs: Iterable[Tensor], channel: int | None = None) -> float:
    """The variance of a tensor over several runs: one sample alone often has none.

    Args:
        runs: its values, [n, ...] each.
        channel: values are held against the mean of their index on this axis; against that of all if None,
            and where runs have not all as many.
    """
    runs = [run.detach().double() for run in runs]
    if channel is not None and len({run.shape[channel] for run in runs}) == 1:
        rows = torch.cat([run.movedim(channel, -1).reshape(-1, run.shape[channel]) for run in runs])
    else:
        rows = torch.cat([run.reshape(-1, 1) for run in runs])
    return float((rows - rows.mean(0)).square().mean())

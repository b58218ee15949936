"""Positions of sequences that a mask leaves out, in losses and second moments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from redtest_onnx.bridge.module import OnnxModule
from redtest_onnx.graph.masks import Mask
from redtest_onnx.training.axes import SampleAxes

if TYPE_CHECKING:
    from redtest_onnx.training.batches import Batch, Samples

_TRIED = 64  # samples that are looked at for one of another length
_LOW = -1e9


def counted_positions(
    mask: Mask | None, feeds: Mapping[str, npt.NDArray[np.generic]], axes: SampleAxes | None = None
) -> Tensor | None:
    """[n, positions] which positions of a run count, bool; None where all do.

    Args:
        mask: of the model.
        feeds: what the run is fed.
        axes: of the model; samples are in front if None. What all samples share leaves out none of theirs.
    """
    axis = None if mask is None else (axes or SampleAxes()).of_input(mask.input)
    if mask is None or mask.input not in feeds or axis is None:
        return None
    counted = np.moveaxis(mask.counted(feeds), axis, 0)
    # A sample that leaves everything out counts all the same: nothing may pass unseen.
    return torch.from_numpy(np.ascontiguousarray(counted | ~counted.any(axis=1, keepdims=True)))


def only_counted(values: Tensor, counted: Tensor | None) -> Tensor:
    """The positions of a sequence [n, positions, channels] that count, as [1, rows, channels].

    Values that are no sequence of such positions stay as they are.
    """
    if not holds_positions(values, counted):
        return values
    assert counted is not None
    return values[counted.to(values.device)][None]


def holds_positions(values: Tensor, counted: Tensor | None) -> bool:
    """Whether values [n, positions, channels] hold the positions that a mask speaks of."""
    return counted is not None and values.dim() == 3 and values.shape[:2] == counted.shape


def positional_tensors(module: OnnxModule, names: tuple[str, ...], samples: Samples) -> frozenset[str]:
    """The tensors [n, positions, ...] whose second axis is the mask's, in samples of different lengths.

    Args:
        module: computes them.
        names: of the tensors.
        samples: with the mask. Where all are of one length, [n, m] is taken for m values per sample.
    """
    by_length: dict[int, Batch] = {}
    for k in range(min(len(samples), _TRIED) if samples.mask is not None else 0):
        batch = samples.alone(k)
        if batch.counted is None:
            return frozenset()
        by_length.setdefault(batch.counted.shape[1], batch)
        if len(by_length) == 2:
            break
    found = set(names) if by_length else set()
    training = module.training
    module.eval()
    with torch.no_grad():
        for length, batch in by_length.items():
            values = samples.axes.samples_first(module.tensors(names, **batch.inputs))
            least = 2 if len(by_length) == 2 else 3
            found &= {k for k, v in values.items() if v.dim() >= least and v.shape[1] == length}
    module.train(training)
    return frozenset(found)


def without_uncounted(values: Tensor, counted: Tensor | None, axis: int | None = None) -> Tensor:
    """Values [n, positions, ...] at the positions that count, as [1, rows, ...].

    Args:
        values: all of them.
        counted: [n, positions] which count; None: all.
        axis: of classes, if a softmax follows; where positions are the classes, those that don't count get a
            score so low that they have no share.
    """
    if counted is None:
        return values
    if axis is not None and axis % values.dim() == 1:
        left_out = ~counted.reshape(*counted.shape, *(1,) * (values.dim() - 2))
        return values.float().masked_fill(left_out, _LOW)
    return values[counted][None]


def fitted_to(values: Tensor, positions: int) -> Tensor:
    """Values [positions, ...] of one sample, cut or filled up with zeros to a number of positions."""
    if len(values) >= positions:
        return values[:positions]
    return torch.cat([values, values.new_zeros(positions - len(values), *values.shape[1:])])

"""Positions of sequences that a mask leaves out, in losses and second moments."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from redtest_onnx.graph.masks import Mask


def counted_positions(mask: Mask | None, feeds: Mapping[str, npt.NDArray[np.generic]]) -> Tensor | None:
    """[n, positions] which positions of a run count, bool; None where all do.

    Args:
        mask: of the model.
        feeds: what the run is fed.
    """
    if mask is None or mask.input not in feeds:
        return None
    return torch.from_numpy(np.ascontiguousarray(mask.counted(feeds)))


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


def fitted_to(values: Tensor, positions: int) -> Tensor:
    """Values [positions, ...] of one sample, cut or filled up with zeros to a number of positions."""
    if len(values) >= positions:
        return values[:positions]
    return torch.cat([values, values.new_zeros(positions - len(values), *values.shape[1:])])

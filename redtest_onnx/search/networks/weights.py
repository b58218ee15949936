"""Weights of somebody else's network in ours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from redtest_onnx.errors import InputError


@torch.no_grad()
def load_in_order(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network the weights of one with the same layers under other names.

    Args:
        network: changed in place.
        weights: of all parameters and buffers, in the order of the layers.

    Raises:
        InputError: another number of tensors, or one has another shape or role.
    """
    own = network.state_dict()
    if len(own) != len(weights):
        raise InputError(f"the weights are {len(weights)} tensors, the network has {len(own)}")
    for (name, tensor), (other, value) in zip(own.items(), weights.items(), strict=True):
        if tensor.shape != value.shape or name.rpartition(".")[2] != other.rpartition(".")[2]:
            raise InputError(
                f"the weights do not fit: {other} {list(value.shape)} stands where the network has "
                f"{name} {list(tensor.shape)}"
            )
        tensor.copy_(value)

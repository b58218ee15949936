"""The residual block of the networks that the tools train."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN plus shortcut, then ReLU (He et al., arXiv 1512.03385).

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the first convolution.
        projected: whether a shortcut between different sizes is a convolution; otherwise it takes every
            `stride`-th pixel and has zeros for the new channels (their option A).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, projected: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = (
                _projection(inputs, outputs, stride) if projected else Padding(stride, outputs - inputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Branch plus shortcut."""
        branch: Tensor = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(branch + self.shortcut(x))


class Padding(nn.Module):
    """Every `stride`-th pixel, and `added` channels of zeros behind the others."""

    def __init__(self, stride: int, added: int) -> None:
        super().__init__()
        self.stride, self.added = stride, added

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c + added, h / stride, w / stride]."""
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))


def _projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

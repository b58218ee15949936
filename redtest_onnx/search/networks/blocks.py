"""Pieces that the networks share."""

from __future__ import annotations

from torch import nn


def conv_bn(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    """ReLU, convolution without bias, batch normalisation."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


def classifier(channels: int, classes: int) -> list[nn.Module]:
    """Global average pool, linear."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]

"""The networks of the size space."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from redtest_onnx.search.networks.blocks import classifier, conv_bn
from redtest_onnx.search.space import ImageTask


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN plus shortcut, then ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            *conv_bn(outputs, outputs, 3),
        )
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, outputs, h / stride, w / stride]."""
        y: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return y


class ResidualNetwork(nn.Module):
    """A first convolution, stages of residual blocks, classifier.

    Args:
        stages: blocks and channels of each; all but the first start with stride 2.
        task: inputs and classes.
    """

    def __init__(self, stages: Sequence[tuple[int, int]], task: ImageTask) -> None:
        super().__init__()
        inputs = stages[0][1]
        self.stem = nn.Sequential(
            nn.Conv2d(task.channels, inputs, 3, padding=1, bias=False), nn.BatchNorm2d(inputs), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        for stage, (count, width) in enumerate(stages):
            for position in range(count):
                blocks.append(ResidualBlock(inputs, width, 2 if stage and position == 0 else 1))
                inputs = width
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Sequential(*classifier(inputs, task.classes))

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, channels, size, size] to logits [n, classes]."""
        return self.layers(x)[0]

    def layers(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits, and the outputs of the first convolution and of every block."""
        x = self.stem[0](x)
        outputs = [x]
        x = self.stem[1:](x)
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        logits: Tensor = self.head(x)
        return logits, outputs

"""The networks of NATS-Bench's topology space."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from redtest_onnx.search.networks.blocks import classifier, conv_bn
from redtest_onnx.search.space import ImageTask
from redtest_onnx.search.topology import EDGES


class Cell(nn.Module):
    """Three nodes; each is the sum of what its edges bring."""

    def __init__(self, operators: Sequence[str], channels: int) -> None:
        super().__init__()
        self._operators = tuple(operators)
        self.edges = nn.ModuleList(_operator(name, channels) for name in operators)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] to the same shape."""
        nodes: list[Tensor | None] = [x, None, None, None]
        for (node, source), name, edge in zip(EDGES, self._operators, self.edges, strict=True):
            value, total = nodes[source], nodes[node]
            if name == "none":
                continue
            # A node that nothing reaches is zero, but what convolutions and norms make of zero still counts.
            brought = edge(x * 0 if value is None else value)
            nodes[node] = brought if total is None else total + brought
        last = nodes[3]
        return x * 0 if last is None else last


class ReductionCell(nn.Module):
    """A residual block that halves the size and doubles the channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_a = conv_bn(inputs, outputs, 3, stride=2)
        self.conv_b = conv_bn(outputs, outputs, 3)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] to [n, 2c, h/2, w/2]."""
        y: Tensor = self.conv_b(self.conv_a(x)) + self.shortcut(x)
        return y


class TopologyNetwork(nn.Module):
    """Stem, three stages of equal cells with reductions between them, classifier.

    Args:
        operators: of the six edges.
        width: channels of the first stage.
        cells: cells per stage.
        task: inputs and classes.
    """

    def __init__(self, operators: Sequence[str], width: int, cells: int, task: ImageTask) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(task.channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        body: list[nn.Module] = []
        for stage in range(3):
            channels = width << stage
            if stage:
                body.append(ReductionCell(channels // 2, channels))
            body.extend(Cell(operators, channels) for _ in range(cells))
        self.body = nn.ModuleList(body)
        last = width * 4
        self.head = nn.Sequential(nn.BatchNorm2d(last), nn.ReLU(), *classifier(last, task.classes))

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, channels, size, size] to logits [n, classes]."""
        return self.layers(x)[0]

    def layers(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits, and the outputs of the stem's convolution and of every cell."""
        x = self.stem[0](x)
        outputs = [x]
        x = self.stem[1](x)
        for cell in self.body:
            x = cell(x)
            outputs.append(x)
        logits: Tensor = self.head(x)
        return logits, outputs


def _operator(name: str, channels: int) -> nn.Module:
    if name == "nor_conv_1x1":
        return conv_bn(channels, channels, 1)
    if name == "nor_conv_3x3":
        return conv_bn(channels, channels, 3)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return nn.Identity()

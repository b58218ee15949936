"""Networks of the shapes that people measure, with random weights.

Every operation is a module of its own, so that hooks and the ONNX graph see the same tensors: an exporter
folds batch normalisation into the convolution before it, and what both measure is behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Add(nn.Module):
    """A sum that hooks can see."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """a + b."""
        return a + b


class Convolution(nn.Module):
    """A convolution and its batch normalisation."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] -> [n, outputs, h / stride, w / stride]."""
        return self.norm(self.conv(x))

    def fold(self) -> None:
        """Put the normalisation into the convolution, as exporters do for inference."""
        self.conv = fuse_conv_bn_eval(self.conv, self.norm)
        self.norm = nn.Identity()


class Block(nn.Module):
    """A residual block of convolutions with kernels `sizes`; the middle one (or first of two) strides."""

    def __init__(self, inputs: int, widths: list[int], sizes: list[int], stride: int) -> None:
        super().__init__()
        channels = [inputs, *widths]
        strided = (len(widths) - 1) // 2
        self.convs = nn.ModuleList(
            Convolution(channels[k], channels[k + 1], size, stride if k == strided else 1)
            for k, size in enumerate(sizes)
        )
        self.relus = nn.ModuleList(nn.ReLU() for _ in sizes)
        same = stride == 1 and inputs == widths[-1]
        self.shortcut = None if same else Convolution(inputs, widths[-1], 1, stride)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] -> [n, widths[-1], h / stride, w / stride]."""
        y = x
        for k, conv in enumerate(self.convs):
            y = conv(y)
            if k + 1 < len(self.convs):
                y = self.relus[k](y)
        return self.relus[-1](self.add(y, x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """A stem, residual blocks, global pooling and a classifier."""

    def __init__(self, stem: nn.Module, blocks: list[Block], classified: int, classes: int) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(classified, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 3, h, w] -> [n, classes]."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(torch.flatten(self.pool(x), 1))


class Attention(nn.Module):
    """Multi-head self-attention, written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[n, tokens, width] -> the same."""
        n, tokens, width = x.shape
        parts = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        weights = (query @ key.transpose(-1, -2) / math.sqrt(width // self.heads)).softmax(-1)
        return self.out((weights @ value).transpose(1, 2).reshape(n, tokens, width))


class Encoder(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.up, self.gelu, self.down = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        self.add1, self.add2 = Add(), Add()

    def forward(self, x: Tensor) -> Tensor:
        """[n, tokens, width] -> the same."""
        x = self.add1(x, self.attention(self.norm1(x)))
        return self.add2(x, self.down(self.gelu(self.up(self.norm2(x)))))


class VisionTransformer(nn.Module):
    """Patches, blocks, and a classifier on the first token."""

    def __init__(self, image: int, patch: int, width: int, depth: int, heads: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, (image // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.ModuleList(Encoder(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 3, image, image] -> [n, classes]."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def cifar_resnet(blocks_per_stage: int) -> ResNet:
    """ResNet of 6 k + 2 layers for 32x32 images (He et al. 2016, section 4.2)."""
    blocks, inputs = [], 16
    for stage, width in enumerate((16, 32, 64)):
        for k in range(blocks_per_stage):
            blocks.append(Block(inputs, [width, width], [3, 3], 2 if stage and k == 0 else 1))
            inputs = width
    return ResNet(nn.Sequential(Convolution(3, 16, 3), nn.ReLU()), blocks, inputs, 10)


def resnet50() -> ResNet:
    """ResNet50 for 224x224 images."""
    blocks, inputs = [], 64
    for stage, (width, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for k in range(count):
            stride = 2 if stage and k == 0 else 1
            blocks.append(Block(inputs, [width, width, 4 * width], [1, 3, 1], stride))
            inputs = 4 * width
    stem = nn.Sequential(Convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return ResNet(stem, blocks, inputs, 1000)


def vit_b() -> VisionTransformer:
    """ViT-B/16 for 224x224 images."""
    return VisionTransformer(224, 16, 768, 12, 12, 1000)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet56": (lambda: cifar_resnet(9), 32),
    "resnet1202": (lambda: cifar_resnet(200), 32),
    "resnet50": (resnet50, 224),
    "vit_b": (vit_b, 224),
}
"""Name -> what makes the network, and the side of its images."""


def build(name: str, images: Tensor) -> nn.Module:
    """A network in evaluation mode, with the same weights each time.

    Args:
        name: in `NETWORKS`.
        images: [n, 3, h, w], whose statistics batch normalisation takes.
    """
    torch.manual_seed(0)
    network = NETWORKS[name][0]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.1)
            module.momentum = None  # running statistics are those of all batches seen
    with torch.no_grad():
        network.train()(images)
    return network.eval()


def fold(network: nn.Module) -> nn.Module:
    """The network with its batch normalisation in its convolutions; modules keep their names and outputs."""
    for module in network.modules():
        if isinstance(module, Convolution):
            module.fold()
    return network


def calls(network: nn.Module, side: int) -> list[str]:
    """Names of all modules in the order in which they return."""
    names = {module: name for name, module in network.named_modules()}
    called: list[str] = []
    handles = [
        module.register_forward_hook(lambda module, _, __: called.append(names[module]))
        for module in network.modules()
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, side, side))
    for handle in handles:
        handle.remove()
    return called


def measured(network: nn.Module, called: list[str], which: str) -> list[str]:
    """Names of the modules to measure, in the order in which they run.

    Args:
        network: one of `NETWORKS`.
        called: from `calls`.
        which: "blocks" (the stem and all blocks), "convs" (all operators with weights, each behind its
            normalisation), "activations" (those, ReLU and sums) or "all" (every tensor of the ONNX graph).
    """
    parts = dict(network.named_modules())
    inside = leaves(network, called)
    if which == "all":
        return inside
    if which == "blocks":
        return [name for name in called if name in ("stem", "patches") or isinstance(parts[name], BLOCKS)]
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear, *(() if which == "convs" else (nn.ReLU, Add)))
    return [name for name in inside if isinstance(parts[name], kinds)]


def leaves(network: nn.Module, called: list[str]) -> list[str]:
    """The called modules without parts, but for convolutions whose normalisation follows."""
    parts = dict(network.named_modules())
    folded = {part.conv for part in parts.values() if isinstance(part, Convolution)}
    return [name for name in called if not any(parts[name].children()) and parts[name] not in folded]


def last_leaf(network: nn.Module, called: list[str], name: str) -> str:
    """The module without parts whose output a module returns."""
    inside = set(leaves(network, called))
    return next(other for other in reversed(called[: called.index(name) + 1]) if other in inside)


class Exposed(nn.Module):
    """A network that returns its output and that of every module without parts."""

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.network = network
        self._seen: dict[str, Tensor] = {}
        for name, module in network.named_modules():
            if name in names:
                module.register_forward_hook(
                    lambda _, __, output, name=name: self._seen.update({name: output})
                )
        self._names = names

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[n, 3, h, w] -> what is behind every module, in order."""
        self.network(x)
        return tuple(self._seen[name] for name in self._names)


BLOCKS = (Block, Encoder)

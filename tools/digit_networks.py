"""The networks that `train_models.py` trains on images of digits."""

from __future__ import annotations

import torch
from experiments.blocks import ResidualBlock
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10
IMAGE_SIZE = 8


class ResNet(nn.Module):
    """A residual network far deeper than 8x8 digits need: three stages of nine blocks."""

    def __init__(self, widths: tuple[int, ...] = (8, 16, 32), blocks_per_stage: int = 9) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        inputs = widths[0]
        for stage, width in enumerate(widths):
            for index in range(blocks_per_stage):
                block = ResidualBlock(inputs, width, 2 if stage > 0 and index == 0 else 1)
                # Every block starts as an identity, so blocks the task does not need can stay close to one.
                nn.init.zeros_(block.bn2.weight)
                blocks.append(block)
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        logits: Tensor = self.head(self.blocks(self.stem(x)))
        return logits


class VGG(nn.Module):
    """A plain chain of 3x3 convolutions without any skip connection."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for stage, widths in enumerate(((16, 16, 16, 16), (24, 32, 32, 32), (48, 48, 48, 48))):
            if stage > 0:
                layers.append(nn.MaxPool2d(2))
            for width in widths:
                convolution = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
                layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        logits: Tensor = self.head(self.features(x))
        return logits


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.projection(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return projected


class TransformerBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        contraction = nn.Linear(ratio * width, width)
        self.mlp = nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), contraction)
        # As in the residual network, each block starts (up to its biases) as an identity.
        nn.init.zeros_(self.attention.projection.weight)
        nn.init.zeros_(contraction.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply attention, then the MLP, each around a skip connection."""
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class ViT(nn.Module):
    """A vision transformer over the sixteen 2x2 patches of a digit and a class token."""

    def __init__(self, width: int = 48, heads: int = 4, depth: int = 8, ratio: int = 3) -> None:
        super().__init__()
        patch = 2
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (IMAGE_SIZE // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, ratio) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        # x.shape[0], not len(x): torch.export would freeze the batch size at len().
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(x.shape[0], -1, -1), tokens], dim=1) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits

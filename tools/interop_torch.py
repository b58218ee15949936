"""The PyTorch modules that `interop_fixtures.py` exports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def torch_models() -> dict[str, tuple[str, Any, dict[str, Any], list[str]]]:
    """Name -> what it is, the module, its inputs by name, names of its outputs."""
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, channels: int, squeeze: bool = False) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels if squeeze else 1),
            )
            self.gate = (
                nn.Sequential(
                    nn.AdaptiveAvgPool2d(1),
                    nn.Conv2d(channels, 4, 1),
                    nn.ReLU(),
                    nn.Conv2d(4, channels, 1),
                    nn.Sigmoid(),
                )
                if squeeze
                else None
            )

        def forward(self, x: Any) -> Any:
            y = self.body(x)
            return torch.relu(x + (y if self.gate is None else y * self.gate(y)))

    def convolutional(block: Callable[[], nn.Module]) -> nn.Module:
        stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        return nn.Sequential(stem, block(), block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))

    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(8 + 4 * k, 4, 3, padding=1) for k in range(3))
            self.mix = nn.Conv2d(20, 8, 1)

        def forward(self, x: Any) -> Any:
            found = [x]
            for layer in self.layers:
                found.append(torch.relu(layer(torch.cat(found, 1))))
            return torch.relu(self.mix(torch.cat(found, 1)))

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)])
            self.middle = nn.Sequential(
                *(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(2))
            )
            self.up = nn.ModuleList([nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)])
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x: Any) -> Any:
            one = torch.relu(self.down[0](x))
            two = torch.relu(self.down[1](torch.max_pool2d(one, 2)))
            deep = self.middle(torch.max_pool2d(two, 2))
            grown = nn.functional.interpolate(deep, scale_factor=2.0, mode="nearest")
            wide = torch.relu(self.up[0](torch.cat([grown, two], 1)))
            wide = nn.functional.interpolate(wide, scale_factor=2.0, mode="nearest")
            return self.head(torch.relu(self.up[1](torch.cat([wide, one], 1))))

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
            self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
            self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

        def heads(self, x: Any) -> Any:
            return x.reshape(x.shape[0], -1, 2, x.shape[-1] // 2).transpose(1, 2)

        def forward(self, x: Any, mask: Any, past: Any = None) -> Any:
            a = self.norms[0](x)
            k, v = self.heads(self.key(a)), self.heads(self.value(a))
            if past is not None:
                k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
            scores = self.heads(self.query(a)) @ k.transpose(-1, -2) / k.shape[-1] ** 0.5
            y = torch.softmax(scores + mask, -1) @ v
            x = x + self.out(y.transpose(1, 2).reshape(x.shape))
            return x + self.mlp(self.norms[1](x)), k, v

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(50, 16)
            self.position = nn.Parameter(torch.randn(8, 16))
            self.blocks = nn.ModuleList(Block(16) for _ in range(2))
            self.head = nn.Linear(16, 4)

        def forward(self, ids: Any, attention_mask: Any) -> Any:
            mask = (1.0 - attention_mask[:, None, None, :]) * -10000.0
            x = self.embed(ids) + self.position
            for block in self.blocks:
                x = block(x, mask)[0]
            return self.head(x[:, 0])

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(50, 16)
            self.blocks = nn.ModuleList(Block(16) for _ in range(2))
            self.head = nn.Linear(16, 50)

        def forward(
            self, ids: Any, past_key_0: Any, past_value_0: Any, past_key_1: Any, past_value_1: Any
        ) -> Any:
            x = self.embed(ids)
            mask = torch.zeros(1, 1, 1, 1)
            present = []
            for block, past in zip(
                self.blocks, ((past_key_0, past_value_0), (past_key_1, past_value_1)), strict=True
            ):
                x, *new = block(x, mask, past)
                present.extend(new)
            return self.head(x), *present

    class Recurrent(nn.Module):
        def __init__(self, kind: type[nn.Module], first: bool) -> None:
            super().__init__()
            self.layers = kind(6, 8, num_layers=2, batch_first=first)
            self.first = first
            self.head = nn.Linear(8, 3)

        def forward(self, x: Any) -> Any:
            y = self.layers(x)[0]
            return self.head(y[:, -1] if self.first else y[-1])

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), Residual(8), Residual(8))
            self.boxes, self.scores = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: Any) -> Any:
            y = self.body(x)
            return self.boxes(y).flatten(2), torch.softmax(self.scores(y).flatten(2), 1)

    torch.manual_seed(0)
    image = {"image": torch.randn(2, 3, 16, 16)}
    ids = torch.randint(0, 50, (2, 8))
    past = {f"past_{w}_{k}": torch.randn(2, 2, 3, 8) for k in range(2) for w in ("key", "value")}
    cache = [f"present_{w}_{k}" for k in range(2) for w in ("key", "value")]
    return {
        "resnet": ("residual network", convolutional(lambda: Residual(8)), image, ["logits"]),
        "senet": (
            "squeeze and excitation, depthwise",
            convolutional(lambda: Residual(8, True)),
            image,
            ["logits"],
        ),
        "densenet": ("dense concatenation", convolutional(Dense), image, ["logits"]),
        "unet": ("U-Net with long skips", UNet(), image, ["mask"]),
        "encoder": (
            "transformer encoder with mask and positions",
            Encoder(),
            {"ids": ids, "attention_mask": torch.ones(2, 8)},
            ["logits"],
        ),
        "decoder": (
            "transformer decoder with a cache",
            Decoder(),
            {"ids": ids[:, :1], **past},
            ["logits", *cache],
        ),
        "lstm": ("LSTM, steps first", Recurrent(nn.LSTM, False), {"x": torch.randn(7, 2, 6)}, ["logits"]),
        "gru": ("GRU, samples first", Recurrent(nn.GRU, True), {"x": torch.randn(2, 7, 6)}, ["logits"]),
        "detector": ("detector with two outputs", Detector(), image, ["boxes", "scores"]),
    }

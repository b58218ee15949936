"""A byte-level language model, trained on the sources of Python's standard library on this machine."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, LAYERS, LENGTH = 96, 4, 8, 96
STEPS, BATCH, LEARNING_RATE, WARM_UP = 1200, 32, 2e-3, 100
CALIBRATION, TEST = 640, 256


class Block(nn.Module):
    """Causal self-attention and an MLP, each around a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.projection = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.expand, self.contract = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """[n, t, d] -> [n, t, d]."""
        shape = (x.shape[0], x.shape[1], 3, HEADS, WIDTH // HEADS)
        query, key, value = self.qkv(self.norm1(x)).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).reshape(x.shape))
        y: Tensor = x + self.contract(functional.gelu(self.expand(self.norm2(x))))
        return y


class Decoder(nn.Module):
    """Embeddings of bytes and positions, blocks, logits of the next byte."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(256, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        """[n, t] bytes -> [n, t, 256] logits."""
        x = self.tokens(tokens) + self.positions(torch.arange(LENGTH, device=tokens.device))
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits


def text() -> npt.NDArray[np.uint8]:
    """The library's modules as bytes, one behind the other in the order of their names."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return np.frombuffer(b"\n".join(file.read_bytes() for file in files), np.uint8)


def windows(source: npt.NDArray[np.uint8], count: int, seed: int) -> npt.NDArray[np.int64]:
    """[count, LENGTH] pieces of the text."""
    starts = np.random.default_rng(seed).integers(0, len(source) - LENGTH, count)
    return source[starts[:, None] + np.arange(LENGTH)].astype(np.int64)


def train(folder: Path) -> Path:
    """Train, export, and write calibration and test samples; what is there already is kept."""
    path = folder / "decoder.onnx"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    source = text()
    # The end of the text is not trained on.
    border = int(len(source) * 0.9)
    torch.manual_seed(0)
    model = Decoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: min(1, (k + 1) / WARM_UP) * (1 - k / (STEPS + 1))
    )
    for step in range(STEPS):
        tokens = torch.from_numpy(windows(source[:border], BATCH, seed=step))
        logits = model(tokens)[:, :-1]
        loss = functional.cross_entropy(logits.reshape(-1, 256), tokens[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    program = torch.onnx.export(
        model.eval(),
        (torch.zeros(2, LENGTH, dtype=torch.int64),),
        dynamo=True,
        input_names=["tokens"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    np.savez(folder / "calibration.npz", tokens=windows(source[:border], CALIBRATION, seed=-1 % 2**32))
    np.savez(folder / "test.npz", tokens=windows(source[border:], TEST, seed=1))
    onnx.save(program.model_proto, path)
    return path

"""A folder of small models that can be pruned, one that is broken, and samples for all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from nets import Net


def write_models(folder: Path) -> Path:
    """Write three models of three to five equal layers, one of them in a folder below; the samples' file."""
    (folder / "below").mkdir(parents=True)
    for k, name in enumerate(("a.onnx", "b.onnx", "below/c.onnx")):
        net = Net(x=["n", 6])
        hidden = "x"
        for _ in range(3 + k):
            hidden = net("Relu", net("MatMul", hidden, net.weight(6, 6)))
        onnx.save(net.model(net("MatMul", hidden, net.weight(6, 3), name="y")).proto, folder / name)
    (folder / "broken.onnx").write_bytes(b"")
    samples = folder.parent / "samples.npz"
    np.savez(samples, x=np.random.default_rng(0).normal(size=(48, 6)).astype(np.float32))
    return samples

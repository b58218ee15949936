"""A model with its weights in a file of their own, and that file's entries changed."""

from __future__ import annotations

from pathlib import Path

import onnx
from nets import Net


def external(folder: Path) -> Path:
    """Two products with weights outside the file."""
    net = Net(x=[2, 4])
    model = net.model(net("MatMul", net("MatMul", "x", net.weight(4, 4)), net.weight(4, 4)))
    path = folder / "big.onnx"
    onnx.save(model.proto, path, save_as_external_data=True, location="big.data", size_threshold=0)
    return path


def edit(path: Path, key: str, value: str, which: int = 0) -> None:
    proto = onnx.load(path, load_external_data=False)
    next(e for e in proto.graph.initializer[which].external_data if e.key == key).value = value
    path.write_bytes(proto.SerializeToString())

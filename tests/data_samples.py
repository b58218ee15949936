"""Samples of several kinds, networks that take them, and what a source of them must give."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from nets import Net
from PIL import Image

import redtest_onnx as rt
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings, analyze

RNG = np.random.default_rng(0)
COUNT = 24
PIXELS = RNG.integers(0, 256, (COUNT, 8, 8, 3), np.uint8)
IMAGES = np.ascontiguousarray(
    (PIXELS.astype(np.float32) * np.float32(1 / 255) - np.float32(0)) / np.float32(1)
).transpose(0, 3, 1, 2)
VECTORS = RNG.standard_normal((COUNT, 6)).astype(np.float32)
LABELS = np.arange(COUNT) % 3


def images_net() -> rt.Model:
    net = Net(x=["n", 3, 8, 8])
    one = net("Relu", net.conv("x", 3, 4))
    return net.model(net("Relu", net.conv(one, 4, 4)))


def vectors_net() -> rt.Model:
    net = Net(x=["n", 6])
    one = net("Tanh", net("MatMul", "x", net.weight(6, 5)))
    return net.model(net("Tanh", net("MatMul", one, net.weight(5, 4))))


def signals_net() -> rt.Model:
    net = Net(x=["n", 40])
    one = net("Tanh", net("MatMul", "x", net.weight(40, 5)))
    return net.model(net("Tanh", net("MatMul", one, net.weight(5, 4))))


def similarity(model: rt.Model, source: Any, **options: Any) -> tuple[np.ndarray, np.ndarray | None]:
    data = rt.open_data(source, model, **options)
    settings = AnalysisSettings(samples=8, batches=3, layers="all")
    found = analyze(Workbench(model, data, rt.RunOptions("cpu", 1)), settings)
    return found.similarity, data.labels(range(len(data)))


def assert_same(
    model: rt.Model, source: Any, arrays: dict[str, np.ndarray], path: Path, **options: Any
) -> None:
    np.savez(path / "expected.npz", **arrays, labels=LABELS)
    expected, _ = similarity(model, path / "expected.npz")
    found, labels = similarity(model, source)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(labels, LABELS)


def png(index: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS[index]).save(file, format="PNG")
    return file.getvalue()

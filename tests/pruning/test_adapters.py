"""Adapters before anything is fitted: positions averaged, channels kept, cut off or filled with zeros."""

from __future__ import annotations

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.graph.surgery import Removal, remove_regions
from redtest_onnx.pruning.adapters import plain_adapter
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

CPU = rt.RunOptions("cpu", 1)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("stride", "outputs"), [(1, 4), (1, 2), (1, 6), (2, 4), (2, 6)])
def test_an_adapter_of_images_averages_windows(kernel: int, stride: int, outputs: int) -> None:
    net = Net(x=[1, 4, 8, 8])
    net("Relu", "x", name="entry")
    net("Relu", net.conv("entry", 4, outputs, stride=stride), name="exit")
    model = net.model(net("Identity", "exit", name="y"))
    values = np.random.default_rng(0).random((1, 4, 8, 8)).astype(np.float32)  # above 0, as behind any Relu
    bench = Workbench(model, rt.open_data({"x": values}, model), CPU)
    adapter = plain_adapter(bench, "entry", "exit", kernel)
    assert adapter[0].weights[0].shape[2:] == (max(kernel, stride),) * 2
    adapted = remove_regions(model, [Removal("entry", "exit", adapter)])
    found = Session(adapted, CPU).run({"x": values})["y"]
    size = 8 // stride
    expected = np.zeros((1, outputs, size, size))
    kept = min(4, outputs)
    windows = values[:, :kept].reshape(1, kept, size, stride, size, stride)
    expected[:, :kept] = windows.mean(axis=(3, 5))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("outputs", [2, 4, 6])
def test_an_adapter_of_vectors_keeps_what_there_is(outputs: int) -> None:
    net = Net(x=[1, 4])
    net("Relu", "x", name="entry")
    net("Tanh", net("MatMul", "entry", net.weight(4, outputs)), name="exit")
    model = net.model(net("Identity", "exit", name="y"))
    values = np.random.default_rng(0).random((1, 4)).astype(np.float32)
    bench = Workbench(model, rt.open_data({"x": values}, model), CPU)
    adapted = remove_regions(model, [Removal("entry", "exit", plain_adapter(bench, "entry", "exit"))])
    found = Session(adapted, CPU).run({"x": values})["y"]
    expected = np.zeros((1, outputs))
    expected[:, : min(4, outputs)] = values[:, : min(4, outputs)]
    np.testing.assert_allclose(found, np.tanh(expected), rtol=1e-5)

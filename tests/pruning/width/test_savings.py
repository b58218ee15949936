"""What channels take with them is what models without them have less."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.graph.channel_edits import keep_channels
from redtest_onnx.graph.cost import count_parameters
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.inner_widths import inner_widths
from redtest_onnx.pruning.width.savings import WidthSavings
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("copied", [False, True], ids=["shared", "copied"])
@pytest.mark.parametrize("read", [False, True], ids=["", "read elsewhere"])
def test_parameters_are_counted_exactly(blocks: int, copied: bool, read: bool, tmp_path: Path) -> None:
    net = Net(x=("n", 6))
    bias, x = net.store(np.ones(8)), "x"
    for _ in range(blocks):
        inner = net("Add", net("MatMul", x, net.weight(6, 8)), net("Identity", bias) if copied else bias)
        x = net("Add", net("MatMul", net("Relu", inner), net.weight(8, 6)), x)
    if read:
        x = net("Add", net("MatMul", x, net.weight(6, 8)), bias)
    onnx.save(net.model(x).proto, tmp_path / "net.onnx")
    model = rt.load(tmp_path / "net.onnx")
    data = rt.open_data({"x": np.ones((8, 6), np.float32)}, model)
    widths = inner_widths(model).found
    savings = WidthSavings(Workbench(model, data, RunOptions(device="cpu", threads=1)), widths)
    before = count_parameters(GraphIndex(model.graph))
    assert len(widths) == blocks
    for chosen in (widths[:1], widths):
        smaller = keep_channels(model, {width.name: np.arange(2, 8) for width in chosen})
        found = before - count_parameters(GraphIndex(smaller.graph))
        assert savings.saved("params", {width.name: 2 for width in chosen}) == found
    first = {width.name: 2 for width in widths[:-1]}
    more = savings.saved("params", first | {widths[-1].name: 2}) - savings.saved("params", first)
    assert savings.gain("params", first, widths[-1].name, 2) == pytest.approx(more)

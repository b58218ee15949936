"""Networks that no cut tensor divides have layers all the same: parts with one entry and one exit."""

from __future__ import annotations

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.verify import verify_removal
from redtest_onnx.runtime.workbench import Workbench

CPU = rt.RunOptions("cpu", 1)
WIDTH = 6


def two_streams(rounds: int) -> rt.Model:
    """Rows and their common state, which exchange values in every round, as graphs with a virtual node do."""
    net = Net(opset=18, x=["N", 5, WIDTH])
    axis = net.store([1], np.int64)
    rows = net("Relu", net("MatMul", "x", net.weight(WIDTH, WIDTH)), name="rows")
    state = net("ReduceMean", rows, axis, name="state")
    for k in range(rounds):
        told = net("MatMul", state, net.weight(WIDTH, WIDTH), name=f"told.{k}")
        h = net("Add", rows, told)
        h = net("Relu", net("MatMul", h, net.weight(WIDTH, WIDTH), name=f"first.{k}"))
        h = net("Tanh", net("MatMul", h, net.weight(WIDTH, WIDTH), name=f"second.{k}"))
        rows = net("Add", rows, h, name=f"rows.{k}")
        gathered = net("Add", state, net("ReduceMean", rows, axis))
        update = net("Relu", net("MatMul", gathered, net.weight(WIDTH, WIDTH), name=f"update.{k}"))
        state = net("Add", state, update, name=f"state.{k}")
    joined = net("Add", rows, state, name="joined")
    return net.model(net("MatMul", net("Relu", joined), net.weight(WIDTH, 3), name="y"))


def bench_of(model: rt.Model) -> Workbench:
    return Workbench(model, rt.open_data(None, model, count=8), CPU)


def test_two_streams_are_opened() -> None:
    bench = bench_of(two_streams(3))
    layers = {layer.tensor: layer for layer in bench.layers()}
    parts = ("told", "first", "second", "update")
    assert {f"{part}.{k}" for part in parts for k in range(3)} <= set(layers)
    for k in range(3):
        assert layers[f"first.{k}"].exit == layers[f"second.{k}"].input
        assert all(layers[f"{part}.{k}"].parameters == WIDTH * WIDTH for part in parts)
    whole = bench.cost.parameters
    assert sum(layer.parameters for layer in layers.values()) <= whole


@pytest.mark.parametrize("part", ["told", "first", "second", "update"])
def test_each_part_goes_alone(part: str) -> None:
    bench = bench_of(two_streams(3))
    layer = next(layer for layer in bench.layers() if layer.tensor == f"{part}.1")
    assert layer.action == "bypass"
    plan = Plan("test", bench.digest, (Step.of(layer),))
    pruned = apply_plan(bench.opened, plan)
    verify_removal(bench.opened, pruned, plan)
    assert len(pruned.graph.node) < len(bench.model.graph.node)


def test_one_round_is_a_block_still() -> None:
    """Few operators with weights are a block with branches, as they ever were."""
    names = {layer.tensor for layer in bench_of(two_streams(1)).layers()}
    assert "first.0" not in names

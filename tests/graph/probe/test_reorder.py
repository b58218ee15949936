"""Probes after ONNX Runtime's rewriting: same numbers, reductions behind what they reduce."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from references import whole_gram

import redtest_onnx as rt
from redtest_onnx.graph.index import reads
from redtest_onnx.graph.probe.constants import PREFIX
from redtest_onnx.graph.probe.reduction import Form, Pooling, Tap
from redtest_onnx.graph.probe.reorder import build_outline, complete
from redtest_onnx.graph.probe.taps import build_probe
from redtest_onnx.metrics.grams import centre_gram
from redtest_onnx.runtime.session import Session

CPU = rt.RunOptions("cpu", 1)
N = 40


def network(channels: int) -> rt.Model:
    """Three convolutions with ReLU; `channels` decide whether ONNX Runtime's blocks are full."""
    rng = np.random.default_rng(0)
    value, make = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    nodes, weights, x, inputs = [], [], "x", 3
    for k in range(3):
        w = rng.standard_normal((channels, inputs, 3, 3)).astype(np.float32) / 5
        weights.append(onnx.numpy_helper.from_array(w, f"w{k}"))
        nodes.append(make("Conv", [x, f"w{k}"], [f"c{k}"], pads=[1] * 4))
        nodes.append(make("Relu", [f"c{k}"], [f"r{k}"]))
        x, inputs = f"r{k}", channels
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [value("r2", TensorProto.FLOAT, ["n", channels, 8, 8])],
        weights,
    )
    return rt.Model(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    )


def taps(channels: int, pooling: Pooling, form: Form) -> list[Tap]:
    return [
        Tap(name, (N, channels, 8, 8), TensorProto.FLOAT, N, 0, pooling, form)
        for name in ("c0", "r0", "r1", "c2")
    ]


def rewritten(model: rt.Model, chosen: list[Tap], folder: Path) -> onnx.ModelProto:
    path = folder / "outline.onnx"
    Session(build_outline(model, chosen), CPU, save_optimised=path)
    proto = onnx.load(path)
    complete(proto, chosen, 17)
    return proto


@pytest.mark.parametrize("channels", [5, 16, 32])
@pytest.mark.parametrize(("pooling", "form"), [("none", "gram"), ("none", "features"), ("mean", "features")])
def test_rewriting_changes_no_number(channels: int, pooling: Pooling, form: Form, tmp_path: Path) -> None:
    model, chosen = network(channels), taps(channels, pooling, form)
    feeds = {"x": np.random.default_rng(1).standard_normal((N, 3, 8, 8)).astype(np.float32)}
    plain = Session(build_probe(model, chosen), CPU, level="basic").run(feeds)
    proto = rewritten(model, chosen, tmp_path)
    found = Session(rt.Model(proto), CPU, level="none", early_release=True).run(feeds)
    for tap in chosen:
        one, two = found[tap.output], plain[tap.output]
        if form == "gram":
            one, two = (centre_gram(whole_gram(flat, N)) for flat in (one, two))
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5 * np.abs(two).max())


@pytest.mark.parametrize(("pooling", "form"), [("none", "gram"), ("mean", "features")])
@pytest.mark.parametrize("more", [(), ("r2",)], ids=["inner", "output"])
def test_reductions_stand_behind_their_producers(
    pooling: Pooling, form: Form, more: tuple[str, ...], tmp_path: Path
) -> None:
    chosen = taps(32, pooling, form)
    chosen += [replace(chosen[0], tensor=name) for name in more]
    proto = rewritten(network(32), chosen, tmp_path)
    ops = [node.op_type for node in proto.graph.node if node.op_type != "Constant"]
    assert form == "features" or "ReorderOutput" not in ops
    own = [node.name.startswith(PREFIX) for node in proto.graph.node if node.op_type != "Constant"]
    convolutions = [k for k, op in enumerate(ops) if op == "Conv"]
    for before, after in pairwise(convolutions):
        assert any(own[before:after])  # no reduction waits for a later operator
    made = {"x", *(weight.name for weight in proto.graph.initializer)}
    for node in proto.graph.node:
        assert made.issuperset(reads(node)), node.name
        made.update(node.output)

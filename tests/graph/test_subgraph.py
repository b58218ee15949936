from __future__ import annotations

import numpy as np
import pytest
from nets import Net

from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.graph.subgraph import Fence, live, segment
from redtest_onnx.runtime.session import RunOptions, Session

CPU = RunOptions(device="cpu")


def net_with_skip() -> Net:
    net = Net(x=[2, 4])
    net("MatMul", "x", net.weight(4, 4), name="a")
    net("Relu", "a", name="b")
    net("MatMul", "b", net.weight(4, 4), name="c")
    net("Add", "c", "a", name="d")
    net("MatMul", "d", net.weight(4, 3), name="y")
    return net


def test_live_tensors_are_all_that_later_nodes_read() -> None:
    net = net_with_skip()
    index = GraphIndex(net.model("y").graph)
    assert live(index, 0) == ("x",)
    assert set(live(index, 2)) == {"b", "a"}
    assert set(live(index, 4)) == {"d"}


@pytest.mark.parametrize("start", range(5))
def test_a_segment_computes_what_the_whole_does(start: int) -> None:
    model = net_with_skip().model("y")
    index = GraphIndex(model.graph)
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    names = live(index, start)
    inner = [name for name in names if name != "x"]
    values = {"x": x, **(Session(expose(model, inner), CPU).run({"x": x}) if inner else {})}
    part = segment(model, ["y"], dict.fromkeys(names, 1))
    assert {spec.name for spec in part.inputs} == set(names)
    assert len(part.graph.node) == 5 - start
    found = Session(part, CPU).run({name: values[name] for name in names})["y"]
    np.testing.assert_allclose(found, Session(model, CPU).run({"x": x})["y"], rtol=1e-6)


def test_a_segment_holds_only_the_weights_it_reads() -> None:
    model = net_with_skip().model("y")
    part = segment(model, ["y"], {"d": 1})
    assert len(part.graph.initializer) == 1


def test_what_is_not_given_is_computed_from_the_inputs() -> None:
    model = net_with_skip().model("y")
    part = segment(model, ["d"], {"b": 1})
    assert {spec.name for spec in part.inputs} == {"b", "x"}


def test_readers_behind_a_fence_read_copies() -> None:
    model = net_with_skip().model("y")
    fence = Fence.at(model, 2)
    assert fence == Fence(("b", "a"), 2)
    part = segment(model, ["y", "b"], {}, fence)
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    found, whole = Session(part, CPU).run({"x": x}), Session(expose(model, ["y", "b"]), CPU).run({"x": x})
    for name in ("y", "b"):
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-6)
    readers = {
        name: node.op_type for node in part.graph.node for name in node.input if node.op_type != "Shape"
    }
    assert (readers["b"], readers["b/copy"]) == ("Reshape", "MatMul")
    assert [node.op_type for node in part.graph.node].count("Reshape") == 2


def test_there_is_no_fence_where_a_list_or_a_branch_might_have_to_be_copied() -> None:
    net = net_with_skip()
    net("SplitToSequence", "y", axis=0, name="parts")
    net("SequenceLength", "parts", name="count")
    assert Fence.at(net.model("count"), 2) is None
    old = net_with_skip()
    old.opset = 4
    assert Fence.at(old.model("y"), 2) is None

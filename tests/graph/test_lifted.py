"""Weights in Constant nodes, as initializers and back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from nets import Net, branch
from onnx import helper, numpy_helper

import redtest_onnx as rt
from redtest_onnx.graph.lifted import lift_weights
from redtest_onnx.pruning.prune import PruneSettings
from redtest_onnx.runtime.session import Session


def constants(model: rt.Model, ir: int = 8) -> rt.Model:
    """The same model with every initializer in a Constant node."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    made = [
        helper.make_node("Constant", [], [t.name], name=f"c_{t.name}", value=t)
        for t in proto.graph.initializer
    ]
    nodes = [*made, *proto.graph.node]
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend(nodes)
    proto.ir_version = ir
    return rt.Model(proto)


def chain(layers: int = 4) -> rt.Model:
    net = Net(x=("n", 6))
    source = net("Reshape", "x", net.store([-1, 6], np.int64))
    for _ in range(layers):
        inner = net("Relu", net("Gemm", source, net.weight(6, 6), net.weight(6)))
        source = net("Add", source, inner)
    return net.model(net("MatMul", source, net.weight(6, 3), name="y"))


@pytest.mark.parametrize("ir", [3, 8])
def test_weights_are_lifted_and_put_back(ir: int) -> None:
    model = constants(chain(), ir)
    lifted, how = lift_weights(model)
    assert how is not None
    assert [node.name for node in lifted.graph.node if node.op_type == "Constant"] == ["c_w0"]  # a size
    assert len(lifted.graph.initializer) == 9
    assert lifted.inputs == model.inputs
    back = how.undo(lifted)
    onnx.checker.check_model(back.proto, full_check=True)
    named = [(node.op_type, node.name) for node in model.graph.node]
    assert sorted((node.op_type, node.name) for node in back.graph.node) == sorted(named)
    assert not back.graph.initializer
    x = {"x": np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)}
    np.testing.assert_array_equal(Session(back).run(x)["y"], Session(model).run(x)["y"])


def test_constants_that_only_branches_and_outputs_read_are_put_back() -> None:
    net = Net(x=("n", 4))
    net.weight(4, 4)
    product = helper.make_node("MatMul", ["x", "w0"], ["then"])
    other = branch("else", [helper.make_node("Relu", ["x"], ["else"])])
    net("MatMul", "x", net.weight(4, 4), name="h")
    flag = net.store(True, np.bool_)
    net("If", flag, name="y", then_branch=branch("t", [product], []), else_branch=other)
    model = constants(net.model("y", "h"))
    lifted, how = lift_weights(model)
    assert how is not None
    onnx.checker.check_model(how.undo(lifted).proto)


def test_a_model_without_weights_in_constants_stays_itself() -> None:
    model = chain()
    assert lift_weights(model) == (model, None)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    half = numpy_helper.from_array(np.array([0.5], np.float32))
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["half"], value=half))
    model = rt.Model(proto)
    assert lift_weights(model)[0] is model


def test_repairs_see_the_weights() -> None:
    """The same as with initializers, and the file keeps its Constant nodes."""
    rng = np.random.default_rng(0)
    x = {"x": rng.normal(size=(160, 6)).astype(np.float32)}
    settings = PruneSettings(repair="refit")
    plain, held = (rt.prune(model, x, remove=1, settings=settings) for model in (chain(), constants(chain())))
    assert len(held.repair.refits) == len(plain.repair.refits) > 0
    assert held.repair.loss == pytest.approx(plain.repair.loss)
    assert not held.model.graph.initializer
    assert held.agreement.relative_l2 == pytest.approx(plain.agreement.relative_l2, rel=1e-4)

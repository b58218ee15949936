"""What a file stores, found without looking at every attribute, against a search of everything."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from google.protobuf.message import Message
from onnx import helper, numpy_helper

from redtest_onnx.graph.tensors import stored_tensors, subgraphs

ONE = numpy_helper.from_array(np.ones(1, np.float32), "one")


def everything(message: Message) -> Iterator[Message]:
    """All messages inside a message."""
    for field, value in message.ListFields():
        for child in value if field.is_repeated else [value]:
            if isinstance(child, Message):
                yield child
                yield from everything(child)


def graph(*nodes: onnx.NodeProto, **stored: list[onnx.TensorProto]) -> onnx.GraphProto:
    return helper.make_graph(nodes, "inner", [], [], **stored)


def node(op_type: str, domain: str = "", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, ["x"], ["y"], domain=domain, **attributes)


INNER = graph(node("Constant", value=ONE), initializer=[ONE])
HOLDING = {
    "constant": node("Constant", value=ONE),
    "filling": node("ConstantOfShape", value=ONE),
    "branches": node("If", then_branch=INNER, else_branch=graph()),
    "loop": node("Loop", body=graph(node("If", then_branch=INNER, else_branch=INNER))),
    "scan": node("Scan", body=INNER, num_scan_inputs=1),
    "map": node("SequenceMap", body=INNER),
    "sparse": node("Constant", sparse_value=helper.make_sparse_tensor(ONE, ONE, [4])),
    "of others": node("Conv", "com.example", weights=ONE, bodies=[INNER, INNER]),
    "not known yet": node("OperatorOfTomorrow", body=INNER),
    "by its long name": node("If", "ai.onnx", then_branch=INNER, else_branch=INNER),
    "plain": node("Conv", kernel_shape=[3, 3], auto_pad="SAME_UPPER"),
}


@pytest.mark.parametrize("name", HOLDING)
def test_tensors_and_graphs_of_nodes_are_found(name: str) -> None:
    local = onnx.FunctionProto(name="f", domain="local", node=[HOLDING[name]])
    model = helper.make_model(graph(HOLDING[name], initializer=[ONE]), functions=[local])
    assert list(subgraphs([HOLDING[name]])) == [
        found
        for attribute in HOLDING[name].attribute
        for found in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    ]
    expected = [found for found in everything(model) if isinstance(found, onnx.TensorProto)]
    assert len(list(stored_tensors(model))) == len(expected)
    if name != "plain":
        assert len(expected) > 1

"""Models in a form that onnx.checker can read without their external data."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from redtest_onnx.graph.model import is_external, subgraphs, tensors


def without_external(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its external weights as inputs, which the checker can read without their files."""
    if not any(is_external(t) for t in tensors(proto.graph)):
        return proto
    checked = onnx.ModelProto()
    checked.CopyFrom(proto)
    listed = {v.name for v in checked.graph.input}
    for tensor in _take_external(checked.graph):
        if tensor.name not in listed:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            checked.graph.input.append(info)
            listed.add(tensor.name)
    return checked


def _take_external(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Take the external weights out of a graph and its subgraphs, which see the inputs of the model."""
    for i in reversed(range(len(graph.initializer))):
        if is_external(graph.initializer[i]):
            yield graph.initializer.pop(i)
    for i in reversed(range(len(graph.node))):
        values = [a.t for a in graph.node[i].attribute if a.HasField("t") and is_external(a.t)]
        if values and graph.node[i].op_type == "Constant":
            yield onnx.TensorProto(
                name=graph.node[i].output[0], data_type=values[0].data_type, dims=values[0].dims
            )
            del graph.node[i]
    for child in subgraphs(graph.node):
        yield from _take_external(child)

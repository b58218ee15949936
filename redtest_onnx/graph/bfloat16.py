"""bfloat16 models in float32, for runtimes without kernels: float32 holds every bfloat16 value exactly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from redtest_onnx.graph.model import Model, subgraphs, tensors

_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype", "stash_type"})


def holds_bfloat16(model: Model) -> bool:
    """Whether tensors of a model are bfloat16."""
    stored = any(tensor.data_type == TensorProto.BFLOAT16 for tensor in tensors(model.graph))
    declared = any(spec.dtype == TensorProto.BFLOAT16 for spec in (*model.inputs, *model.outputs))
    return stored or declared


def in_float32(model: Model) -> Model:
    """A copy in which all that is bfloat16 is float32; results are no longer rounded to bfloat16.

    Args:
        model: the model; not changed. External bfloat16 weights are read into the copy.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in tensors(proto.graph):
        if tensor.data_type == TensorProto.BFLOAT16:
            values = model.value(tensor).astype(np.float32)
            fresh = onnx.numpy_helper.from_array(values, tensor.name)
            tensor.CopyFrom(fresh)
    for graph in _graphs(proto.graph):
        for info in (*graph.input, *graph.output, *graph.value_info):
            if info.type.tensor_type.elem_type == TensorProto.BFLOAT16:
                info.type.tensor_type.elem_type = TensorProto.FLOAT
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in _TYPE_ATTRIBUTES and attribute.i == TensorProto.BFLOAT16:
                    attribute.i = TensorProto.FLOAT
    return model.edited(proto)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for child in subgraphs(graph.node):
        yield from _graphs(child)

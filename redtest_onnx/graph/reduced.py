"""Models without parts that a stage has no use for: without their weights, without local functions."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import inliner

from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model, tensor_elements


def without_weights(
    model: Model, inputs: Iterable[onnx.ValueInfoProto], largest: int = -1
) -> onnx.ModelProto:
    """The nodes and functions of a model, with its weights as inputs; outputs are left to the caller.

    Args:
        model: the model; not changed.
        inputs: what the caller feeds; weights come behind them.
        largest: number of elements up to which a weight keeps its values.
    """
    source = model.graph
    proto = onnx.ModelProto(ir_version=model.proto.ir_version)
    proto.opset_import.extend(model.proto.opset_import)
    proto.functions.extend(model.proto.functions)
    graph = proto.graph
    graph.name = source.name or "graph"
    graph.node.extend(source.node)
    graph.input.extend(inputs)
    for tensor in source.initializer:
        if tensor_elements(tensor.dims) > largest:
            dims = list(tensor.dims)
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, dims))
        else:
            graph.initializer.append(tensor)
    return proto


def without_functions(proto: onnx.ModelProto, label: str) -> onnx.ModelProto:
    """The model with its local functions inlined; the model itself where it has none.

    Args:
        proto: the model; not changed.
        label: what messages call it.

    Raises:
        InputError: a function can't be inlined.
    """
    if not proto.functions:
        return proto
    try:
        return inliner.inline_local_functions(proto)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"its local functions can't be inlined: {error}",
            where=label,
            hint="export the model without functions",
        ) from error

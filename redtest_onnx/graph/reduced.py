"""Models without parts that a stage has no use for: without their weights, without local functions."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import onnx
from google.protobuf.message import Message
from onnx import inliner

from redtest_onnx.errors import InputError
from redtest_onnx.graph.functions import with_models_versions
from redtest_onnx.graph.model import (
    Model,
    is_external,
    subgraphs,
    tensor_bytes,
    tensor_elements,
    tensors,
)

Proto = TypeVar("Proto", bound=Message)

_LARGE_WEIGHT = 1 << 20  # bytes
_INT64 = onnx.TensorProto.INT64
_FILLED = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BOOL}
    | {onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT32, onnx.TensorProto.INT64}
)
"""Element types that ONNX Runtime's ConstantOfShape makes."""


def copied_without(message: Proto, fields: Container[str]) -> Proto:
    """A copy of a message without some of its fields, which are never copied on the way."""
    copied = type(message)()
    for field in message.DESCRIPTOR.fields:
        if field.name in fields:
            continue
        if field.is_repeated:
            getattr(copied, field.name).extend(getattr(message, field.name))
        elif not message.HasField(field.name):
            continue
        elif field.message_type is not None:
            getattr(copied, field.name).CopyFrom(getattr(message, field.name))
        else:
            setattr(copied, field.name, getattr(message, field.name))
    return copied


def with_weights_made_in_place(model: Model) -> Model:
    """A model of the same sizes that makes its large weights, all zero, where they are read.

    It runs where the model runs and fails where sizes don't fit, without the memory that weights take. Of a
    table of embeddings one column is made, which holds whether an index lies in it. Small weights, which may
    be sizes or axes, are as they were.
    """
    source = model.graph
    large = {t.name: t for t in source.initializer if _is_large(t) and t.data_type in _FILLED}
    if not large:
        return model
    tables = _tables(source, large)
    proto = copied_without(model.proto, {"graph"})
    graph = proto.graph
    graph.CopyFrom(copied_without(source, {"initializer", "input", "node"}))
    graph.input.extend(info for info in source.input if info.name not in large)
    graph.initializer.extend(t for t in source.initializer if t.name not in large)
    for k, tensor in enumerate(large.values()):
        made = [tensor.dims[0], 1] if tensor.name in tables else tensor.dims
        graph.initializer.append(_sizes(f"redtest.sizes.{k}", made))
        zero = onnx.helper.make_tensor("", tensor.data_type, [1], [0])
        node = onnx.helper.make_node("ConstantOfShape", [f"redtest.sizes.{k}"], [tensor.name], value=zero)
        graph.node.append(node)
    for k, node in enumerate(source.node):
        graph.node.append(node)
        if node.input and node.input[0] in tables:
            row, column = f"redtest.row.{k}", f"redtest.column.{k}"
            graph.initializer.append(_sizes(row, large[node.input[0]].dims[1:]))
            graph.node[-1].output[0] = column
            graph.node.append(onnx.helper.make_node("Expand", [column, row], node.output))
    return model.edited(proto)


def _tables(graph: onnx.GraphProto, names: Mapping[str, onnx.TensorProto]) -> set[str]:
    """Those matrices of which nothing is read but rows."""
    found = {name for name, tensor in names.items() if len(tensor.dims) == 2}
    found -= {info.name for info in graph.output}
    for node in graph.node:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        rows = node.op_type == "Gather" and not node.domain and axis in (0, -2)
        found.difference_update(node.input[1:] if rows else node.input)
    for child in subgraphs(graph.node):
        found -= _read_in(child)
    return found


def _read_in(graph: onnx.GraphProto) -> set[str]:
    """Names that a graph and its subgraphs read, its own among them."""
    found = {name for node in graph.node for name in node.input} | {info.name for info in graph.output}
    return found.union(*(_read_in(child) for child in subgraphs(graph.node)))


def _sizes(name: str, sizes: Sequence[int]) -> onnx.TensorProto:
    return onnx.helper.make_tensor(name, _INT64, [len(sizes)], sizes)


def with_weights_as_inputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """What onnx.checker has to see of a model whose weights were checked: large and external ones are inputs.

    So it needs neither their memory nor their files. The model itself where there are none.
    """
    if not any(map(_is_apart, tensors(proto.graph))):
        return proto
    checked = copied_without(proto, {"graph"})
    graph = checked.graph
    graph.CopyFrom(copied_without(proto.graph, {"initializer"}))
    graph.initializer.extend(t for t in proto.graph.initializer if not _is_apart(t))
    listed = {info.name for info in graph.input}
    for tensor in (*filter(_is_apart, proto.graph.initializer), *_taken_apart(graph)):
        if tensor.name not in listed:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            graph.input.append(info)
            listed.add(tensor.name)
    return checked


def _is_apart(tensor: onnx.TensorProto) -> bool:
    if is_external(tensor):
        return True
    fields = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
    only_raw = not any(len(getattr(tensor, field)) for field in fields)  # the checker names what has more
    return tensor.HasField("raw_data") and _is_large(tensor) and only_raw


def _taken_apart(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Take such weights out of a graph and its subgraphs, which see the inputs of the model."""
    for i in reversed(range(len(graph.initializer))):
        if _is_apart(graph.initializer[i]):
            yield graph.initializer.pop(i)
    for i in reversed(range(len(graph.node))):
        values = [a.t for a in graph.node[i].attribute if a.HasField("t") and _is_apart(a.t)]
        if values and graph.node[i].op_type == "Constant":
            yield onnx.TensorProto(
                name=graph.node[i].output[0], data_type=values[0].data_type, dims=values[0].dims
            )
            del graph.node[i]
    for child in subgraphs(graph.node):
        yield from _taken_apart(child)


def _is_large(tensor: onnx.TensorProto) -> bool:
    return tensor_bytes(tensor) > _LARGE_WEIGHT


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
        return inliner.inline_local_functions(with_models_versions(proto))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"its local functions can't be inlined: {error}",
            where=label,
            hint="export the model without functions",
        ) from error

"""Write trained values into the ONNX graph they came from; nothing else of the file changes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from redtest_onnx.arrays import Values
from redtest_onnx.bridge.dtypes import to_array
from redtest_onnx.bridge.module import OnnxModule
from redtest_onnx.bridge.stored import stored_tensors
from redtest_onnx.bridge.untie import rejoin, split
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model, is_external

# What protobuf can serialise in one message.
_LARGEST_PROTO = 2**31 - 1

# Where a tensor keeps its values if not as raw bytes.
_TYPED_FIELDS: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float_data",
    onnx.TensorProto.DOUBLE: "double_data",
    onnx.TensorProto.FLOAT16: "int32_data",
    onnx.TensorProto.BFLOAT16: "int32_data",
}


def from_torch(module: nn.Module, model: Model) -> Model:
    """A model with the module's weights and running statistics, and everything else as in `model`.

    Only the bytes of tensors whose values changed are replaced, in the field (raw or typed) that held them
    and in their stored type, whatever type the module has. An untrained module gives an equal model.

    Tensors in external files that changed become part of the proto; unchanged ones stay where they are, and
    `graph.model.save` writes both. The readers of an untied initializer whose copy changed read a new
    initializer, `<name>_untied2` and so on; copies that still equal the original stay joined with it.

    Args:
        module: from `to_torch(model)`, trained; may be wrapped by `torch.compile` or for data parallelism.
        model: the model it was made from.

    Raises:
        InputError: the module was made from another model, its weights are no longer finite, or the changed
            external tensors don't fit into one proto.
    """
    source = unwrapped(module)
    values = {name: _checked(source, model, name, tensor) for name, tensor in source.trained()}
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    _write_copies(proto.graph, source, model, values)
    stored = stored_tensors(proto.graph)
    for name, value in values.items():
        if name not in source.copies:
            _write(stored[name].tensor, value, model)
    if proto.ByteSize() > _LARGEST_PROTO:
        raise InputError(
            "the changed weights don't fit into one ONNX file of 2 GiB",
            where=model.label,
            hint="freeze part of the weights with requires_grad_(False), so that fewer tensors change",
        )
    return model.edited(proto)


def unwrapped(module: nn.Module) -> OnnxModule:
    """The module of the bridge inside what `torch.compile` or a data-parallel wrapper made of it.

    Raises:
        InputError: it is no module of the bridge.
    """
    while not isinstance(module, OnnxModule):
        inner = getattr(module, "_orig_mod", None) or getattr(module, "module", None)
        if not isinstance(inner, nn.Module):
            raise InputError(f"{type(module).__name__} was not made by to_torch", hint="pass its result")
        module = inner
    return module


def _checked(module: OnnxModule, model: Model, name: str, tensor: Tensor) -> Values:
    """The values of a trained tensor as the model stores them."""
    original = _original(module, model, name)
    if list(tensor.shape) != list(original.dims):
        raise _foreign(model, f"{name!r} is {list(original.dims)} there and {list(tensor.shape)} here")
    value = to_array(tensor, original.data_type)
    if not torch.isfinite(tensor).all() and np.isfinite(model.value(original)).all():
        raise InputError(
            f"{name!r} is no longer finite after training",
            where=model.label,
            hint="lower the learning rate, or clip the gradients",
        )
    return value


def _original(module: OnnxModule, model: Model, name: str) -> onnx.TensorProto:
    stored = model.initializers.get(module.copies.get(name, name)) or _constants(model).get(name)
    if stored is None:
        raise _foreign(model, f"it has no {name!r}")
    return stored


def _constants(model: Model) -> dict[str, onnx.TensorProto]:
    return {name: item.tensor for name, item in stored_tensors(model.graph).items()}


def _foreign(model: Model, difference: str) -> InputError:
    return InputError(
        f"the module was not made from this model: {difference}",
        where=model.label,
        hint="pass the model that was given to to_torch",
    )


def _write_copies(
    graph: onnx.GraphProto, module: OnnxModule, model: Model, values: Mapping[str, Values]
) -> None:
    """Give untied copies that differ from their original initializers of their own, and join the others."""
    copies = split(graph, set(module.copies.values()))
    if copies != module.copies:
        raise _foreign(model, "other nodes read its shared weights")
    joined = {copy: name for copy, name in copies.items() if _same(values[copy], values[name])}
    rejoin(graph, joined)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    declared = {value.name: value for value in graph.input}
    for copy, name in copies.items():
        if copy in joined:
            continue
        tensor = graph.initializer.add()
        tensor.CopyFrom(stored[name])
        tensor.name = copy
        _write(tensor, values[copy], model)
        if name in declared:
            # Before IR version 4 initializers are inputs too.
            value = graph.input.add()
            value.CopyFrom(declared[name])
            value.name = copy


def _same(a: Values, b: Values) -> bool:
    return a.tobytes() == b.tobytes()


def _write(tensor: onnx.TensorProto, value: Values, model: Model) -> None:
    """Replace a tensor's values where they changed."""
    if _same(value, model.value(tensor)):
        return
    if is_external(tensor):
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = _raw(value)
    elif tensor.HasField("raw_data"):
        tensor.raw_data = _raw(value)
    else:
        field = _TYPED_FIELDS[tensor.data_type]
        flat = value.view(np.uint16).ravel() if field == "int32_data" else value.ravel()
        values = getattr(tensor, field)
        del values[:]
        values.extend(flat.tolist())


def _raw(value: Values) -> bytes:
    """The bytes of an array in ONNX's order, little-endian."""
    return value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()

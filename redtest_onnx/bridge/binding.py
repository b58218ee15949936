"""Give a kernel the attributes of its node, decoded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import onnx
import torch

from redtest_onnx.bridge.dtypes import to_tensor, torch_dtype
from redtest_onnx.bridge.registry import CAPTURED, CONTEXT, OUTPUTS, Kernel, KernelEntry

_FILLED_LATER = frozenset({CONTEXT, CAPTURED})


class Fill(NamedTuple):
    """The value of a tensor attribute with one element."""

    value: float
    dtype: torch.dtype


def bind(
    kernel: Kernel,
    keywords: Mapping[str, Any],
    node: onnx.NodeProto,
    version: int,
    block: Callable[[onnx.GraphProto], Any],
) -> Kernel:
    """The kernel with the node's attributes, and the schema's defaults for those the node leaves out.

    Args:
        kernel: the function.
        keywords: its keyword-only parameters by name.
        node: the node.
        version: version of the operator set the node belongs to.
        block: makes something callable of a subgraph.
    """
    given = {a.name: _decoded(a, block) for a in node.attribute if a.name in keywords}
    defaults = schema_defaults(node, version)
    values: dict[str, Any] = {}
    for name, parameter in keywords.items():
        if name == OUTPUTS:
            values[name] = len(node.output)
        elif name in given:
            values[name] = given[name]
        elif name in defaults and name not in _FILLED_LATER:
            values[name] = _decoded(defaults[name], block)
        if name in values and str(parameter.annotation).startswith("torch.dtype"):
            values[name] = torch_dtype(values[name]) if values[name] else None
    return partial(kernel, **values) if values else kernel


def unknown_attributes(operator: KernelEntry, node: onnx.NodeProto, version: int) -> list[str]:
    """Attributes that are set to something other than their default and that the kernel doesn't take."""
    defaults = schema_defaults(node, version)
    return [a.name for a in node.attribute if a.name not in operator.keywords and a != defaults.get(a.name)]


def schema_defaults(node: onnx.NodeProto, version: int) -> dict[str, onnx.AttributeProto]:
    """Default attribute values of the node's operator; none for operators that ONNX doesn't define."""
    try:
        schema = onnx.defs.get_schema(node.op_type, version, "" if node.domain == "ai.onnx" else node.domain)
    except onnx.defs.SchemaError:
        return {}
    return {name: a.default_value for name, a in schema.attributes.items() if a.default_value.name}


def _decoded(attribute: onnx.AttributeProto, block: Callable[[onnx.GraphProto], Any]) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.GraphProto):
        return block(value)
    if isinstance(value, onnx.TensorProto):
        tensor = to_tensor(onnx.numpy_helper.to_array(value))
        return Fill(tensor.item(), tensor.dtype) if tensor.numel() == 1 else tensor
    if isinstance(value, bytes):
        return value.decode()
    if attribute.type in _LISTS:
        return tuple(item.decode() if isinstance(item, bytes) else item for item in value)
    return value


_LISTS = frozenset({onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS, onnx.AttributeProto.STRINGS})

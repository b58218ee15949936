"""Operators that ONNX Runtime registers in the default domain although ONNX itself has no schema for them.

onnx.checker refuses models that hold them; ONNX Runtime loads and runs these models.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from redtest_onnx.graph.model import subgraphs

RUNTIME_ONLY: frozenset[str] = frozenset(
    {"SimplifiedLayerNormalization", "LayerNormalization", "Affine", "Crop", "DynamicSlice", "ImageScaler"}
    | {"ParametricSoftplus", "Scale", "ScaledTanh", "MeanVarianceNormalization", "ThresholdedRelu"}
    | {"GivenTensorFill", "GRUUnit"}
)
"""Operators that ONNX Runtime has in every operator set, whether ONNX has them or not."""

_UNCHECKED = "redtest.unchecked"


def runtime_only_operators(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Operators that ONNX has no schema for in the model's operator set, but ONNX Runtime does."""
    opset = default_opset(proto)
    return tuple(sorted({node.op_type for node in _nodes(proto.graph) if _runtime_only(node, opset)}))


def without_runtime_only(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model for onnx.checker: these operators stand in a domain that it does not check.

    The model itself where it holds none of them.
    """
    if not runtime_only_operators(proto):
        return proto
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    opset = default_opset(proto)
    for node in _nodes(copied.graph):
        if _runtime_only(node, opset):
            node.domain = _UNCHECKED
    copied.opset_import.append(onnx.helper.make_opsetid(_UNCHECKED, 1))
    return copied


def default_opset(proto: onnx.ModelProto) -> int:
    """Version of the default domain's operator set; 0 if none is declared."""
    return next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)


def _runtime_only(node: onnx.NodeProto, opset: int) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type not in RUNTIME_ONLY:
        return False
    try:
        return bool(onnx.defs.get_schema(node.op_type, opset, "").deprecated)
    except onnx.defs.SchemaError:
        return True


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    yield from graph.node
    yield from (node for child in subgraphs(graph.node) for node in _nodes(child))

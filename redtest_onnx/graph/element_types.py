"""Element types behind operators of ONNX Runtime that ONNX's inference doesn't know."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import TensorProto

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.runtime_operators import RUNTIME_ONLY

# The operand whose type the first result has, where that isn't the first operand.
_TYPED_BY = {
    "QAttention": 2,
    "MatMulIntegerToFloat": 2,
    "QGemm": 8,
    "QLinearConcat": 1,
    "QLinearConv": 7,
    "QLinearWhere": 1,
    "QuantizeLinear": 2,
    "DequantizeLinear": 1,
    "EmbedLayerNormalization": 2,
    "GatherBlockQuantized": 2,
}
_WITHOUT_IT = {"QGemm": TensorProto.FLOAT, "QuantizeLinear": TensorProto.UINT8}
_OTHERS = {
    ("EmbedLayerNormalization", 1): TensorProto.INT32,
    ("QEmbedLayerNormalization", 0): TensorProto.FLOAT,
}
_CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
_CODES = {
    f"tensor({name.lower()})": code for name, code in TensorProto.DataType.items() if name != "UNDEFINED"
}


def add_element_types(nodes: Iterable[onnx.NodeProto], opset: int, known: dict[str, int]) -> None:
    """Tell the types of results that inference left open: those of ONNX Runtime's operators, and behind them.

    Args:
        nodes: of a graph, in order.
        opset: version of the default operator set.
        known: types by tensor; completed.
    """
    for node in nodes:
        for k, name in enumerate(node.output):
            if name and name not in known and (code := _type_of(node, k, opset, known)) is not None:
                known[name] = code


def _type_of(node: onnx.NodeProto, k: int, opset: int, known: dict[str, int]) -> int | None:
    if ops.is_unknown(node) or node.op_type in _CONTROL_FLOW:
        return None
    schema = None
    if node.domain in ("", "ai.onnx", "ai.onnx.ml"):
        domain = "" if node.domain == "ai.onnx" else node.domain
        try:
            schema = onnx.defs.get_schema(node.op_type, opset if not domain else 5, domain)
        except onnx.defs.SchemaError:
            if node.op_type not in RUNTIME_ONLY:
                return None
    if schema is not None and not schema.deprecated:
        return _by_schema(schema, node, k, known)
    if (node.op_type, k) in _OTHERS:
        return _OTHERS[node.op_type, k]
    place = _TYPED_BY.get(node.op_type, 0)
    if place < len(node.input) and node.input[place]:
        return known.get(node.input[place])
    return _WITHOUT_IT.get(node.op_type)


def _by_schema(schema: onnx.defs.OpSchema, node: onnx.NodeProto, k: int, known: dict[str, int]) -> int | None:
    """As ONNX's definition says: one type for all operands and results of one letter."""
    if not schema.outputs or not schema.inputs:
        return None
    letter = schema.outputs[min(k, len(schema.outputs) - 1)].type_str
    if letter in _CODES:
        return _CODES[letter]
    for place, name in enumerate(node.input):
        formal = schema.inputs[min(place, len(schema.inputs) - 1)]
        if formal.type_str == letter and name in known:
            return known[name]
    return None

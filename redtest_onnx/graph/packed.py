"""Weights that ONNX Runtime's operators keep packed, several to a byte."""

from __future__ import annotations

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.model import element_bits, tensor_elements

# Operator -> positions of packed tensors and of packed zero points, whose attribute `bits` tells how.
_PACKED = {
    ops.MS + "MatMulNBits": (1, 3),
    ops.MS + "GatherBlockQuantized": (0, 3),
    ops.MS + "QMoE": (2, 5, 8),
}


def held_weights(node: onnx.NodeProto, name: str, tensor: onnx.TensorProto) -> int | None:
    """How many weights a packed operand of a node holds; None if the node does not take it packed."""
    kind = ops.qualified(node)
    positions = [k for k, read in enumerate(node.input) if read == name]
    if kind in (ops.MS + "MatMulNBits", ops.MS + "MatMulBnb4") and 1 in positions:
        return _int(node, "K", 0) * _int(node, "N", 0)
    if kind in _PACKED and any(k in _PACKED[kind] for k in positions):
        bits = _int(node, "bits", _int(node, "expert_weight_bits", 4))
        stored = element_bits(tensor.data_type)
        return tensor_elements(tensor.dims) * max(stored // bits, 1) if stored == 8 else None
    return None


def _int(node: onnx.NodeProto, name: str, default: int) -> int:
    return int(str(ops.attribute(node, name, default)))

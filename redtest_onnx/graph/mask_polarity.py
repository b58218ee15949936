"""Whether a mask is 1 where positions count, or where padding is, as PyTorch's `key_padding_mask`."""

from __future__ import annotations

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.size_origins import constant

_SAME = ops.CARRIERS | ops.RESHAPES | {"Expand", "Tile", "Slice", "Transpose", "And", "Concat", "Gather"}
_SPREAD = ops.CARRIERS | ops.RESHAPES | {"Expand", "Tile", "ConstantOfShape"}
_LARGE = -1e3  # scores that no softmax sees
_FAR = 64  # tensors to look at


def marks_padding(model: Model, index: GraphIndex, name: str) -> bool | None:
    """Whether true in a mask means padding; None if the graph doesn't tell.

    It tells where attention scores are made very small: by a choice between a large negative constant and
    something else, or by a product with such a constant.
    """
    stack, seen = [(name, False)], {name}
    while stack and len(seen) < _FAR:
        tensor, turned = stack.pop()
        for reader in index.readers.get(tensor, ()):
            node = index.nodes[reader]
            found = _told(model, index, node, tensor)
            if found is not None:
                return found != turned
            turns = _turns(model, index, node, tensor)
            if turns is None:
                continue
            for made in node.output:
                if made not in seen:
                    seen.add(made)
                    stack.append((made, turned != turns))
    return None


def _told(model: Model, index: GraphIndex, node: onnx.NodeProto, tensor: str) -> bool | None:
    """Whether true in a tensor makes scores small by this node; None if the node makes none small."""
    if node.op_type == "Where" and node.input[0] == tensor:
        small = [_is_small(model, index, choice) for choice in node.input[1:]]
        return small[0] if small[0] != small[1] else None
    if node.op_type == "Mul" and any(
        _is_small(model, index, other) for other in node.input if other != tensor
    ):
        return True
    return None


def _turns(model: Model, index: GraphIndex, node: onnx.NodeProto, tensor: str) -> bool | None:
    """Whether true becomes false by this node; None if it is followed no further."""
    if node.op_type in _SAME:
        return False
    if node.op_type == "Not":
        return True
    others = [other for other in node.input if other != tensor]
    value = constant(model, index, others[0]) if len(others) == 1 else None
    if value is None or value.size != 1:
        return None
    if node.op_type == "Equal":
        return not bool(value.reshape(-1)[0])
    if node.op_type == "Sub" and node.input[1] == tensor and float(value.reshape(-1)[0]) == 1:
        return True
    return None


def _is_small(model: Model, index: GraphIndex, name: str) -> bool:
    """Whether a tensor is a large negative constant, in any shape."""
    for _ in range(_FAR):
        value = constant(model, index, name)
        if value is not None:
            return value.dtype.kind == "f" and value.size > 0 and float(value.max()) <= _LARGE
        producer = index.producer.get(name)
        if producer is None or index.nodes[producer].op_type not in _SPREAD:
            return False
        node = index.nodes[producer]
        if node.op_type == "ConstantOfShape":
            filled = ops.attribute(node, "value")
            return isinstance(filled, onnx.TensorProto) and float(model.value(filled).max()) <= _LARGE
        name = node.input[0]
    return False

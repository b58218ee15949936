"""Which positions of a text count in an output by position."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import onnx

from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.masks import Mask, as_mask

if TYPE_CHECKING:
    from redtest_onnx.runtime.outputs.holds import OutputGraph

_MASK = re.compile(r"mask", re.IGNORECASE)
_LENGTH = re.compile(r"len(gth)?s?($|[_./])", re.IGNORECASE)


def position_mask(graph: OutputGraph, tensor: str, axis: int | None) -> Mask | None:
    """The model input that says which positions of a tensor [N, T, ...] count; None if there is none.

    That is the model's mask, where the tensor depends on it and has its positions; another input called a
    mask of sizes [N, T]; or one of lengths [N].
    """
    sizes = graph.shapes.sizes.get(tensor, ())
    if len(sizes) < 2 or (axis is not None and axis % len(sizes) == 1) or (len(sizes) == 2 and axis is None):
        return None
    depends = None
    known = graph.mask
    # The model's own mask goes before others of the same sizes.
    for spec in sorted(graph.model.inputs, key=lambda spec: known is None or spec.name != known.input):
        own = known is not None and spec.name == known.input
        shape = graph.shapes.sizes.get(spec.name, ())
        by_mask = (own or _MASK.search(spec.name)) and len(shape) == 2 and shape[1] == sizes[1]
        by_length = _LENGTH.search(spec.name) and len(shape) == 1 and spec.dtype in _INTEGERS
        if by_mask or by_length:
            depends = depends or _sources(graph.index, tensor)
            if spec.name in depends:
                return known if own else as_mask(graph.model, graph.index, spec)
    return None


def _sources(index: GraphIndex, tensor: str) -> set[str]:
    """All tensors that a tensor is computed from."""
    found: set[str] = set()
    stack = [tensor]
    while stack:
        name = stack.pop()
        if name in found:
            continue
        found.add(name)
        node = index.producer.get(name)
        if node is not None:
            stack.extend(index.reads[node])
    return found


_INTEGERS = frozenset({onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL})

"""Inputs whose samples do not come first: recurrent operators take [steps, samples, width]."""

from __future__ import annotations

import onnx

from redtest_onnx.graph import operators as ops

Axes = tuple[int | None, ...]
"""For each axis of a tensor the axis of the input it comes from."""

# Their first operand keeps its axes, but perhaps the last.
_KEEPING = ops.POINTWISE | ops.NORMALISATION | {"MatMul"}
_SAMPLES = 1  # of what a recurrent operator reads


def recurrent_inputs(graph: onnx.GraphProto) -> dict[str, int]:
    """The axis of the samples of each input that a recurrent operator reads, directly or past others."""
    if not any(ops.qualified(node) in ops.RECURRENT for node in graph.node):
        return {}
    known: dict[str, tuple[str, Axes]] = {
        info.name: (info.name, tuple(range(len(info.type.tensor_type.shape.dim)))) for info in graph.input
    }
    found: dict[str, int] = {}
    for node in graph.node:
        if ops.qualified(node) in ops.RECURRENT:
            name, axes = known.get(node.input[0], ("", ()))
            axis = None if ops.attribute(node, "layout", 0) else dict(enumerate(axes)).get(_SAMPLES)
            if axis is not None:
                found.setdefault(name, axis)
        elif node.output and (moved := _moved(node, known)) is not None:
            known[node.output[0]] = moved
    return found


def _moved(node: onnx.NodeProto, known: dict[str, tuple[str, Axes]]) -> tuple[str, Axes] | None:
    """What the first output of a node keeps of an input's axes."""
    source = known.get(node.input[0]) if node.input else None
    if ops.qualified(node) == "Gather" and len(node.input) == 2:
        indices = known.get(node.input[1])
        return None if indices is None or source is not None else (indices[0], (*indices[1], None))
    if source is None or ops.qualified(node) in _KEEPING:
        return source
    if ops.qualified(node) == "Transpose":
        name, axes = source
        order = ops.attribute(node, "perm", tuple(reversed(range(len(axes)))))
        assert isinstance(order, list | tuple)
        return (name, tuple(axes[k] for k in order)) if sorted(order) == list(range(len(axes))) else None
    return None

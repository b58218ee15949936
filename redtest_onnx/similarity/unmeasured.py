"""Tensors of a graph that have no similarity, and why."""

from __future__ import annotations

from collections.abc import Collection

from redtest_onnx.graph.model import dtype_name
from redtest_onnx.graph.probe.exposure import ALL, UnexposedTensor, select_tensors
from redtest_onnx.runtime.workbench import Workbench


def unmeasured_tensors(bench: Workbench, measured: Collection[str]) -> tuple[UnexposedTensor, ...]:
    """What is left out where every tensor is to be measured.

    Args:
        bench: the model with samples.
        measured: names of the tensors that are measured.
    """
    selection = select_tensors(bench.index, (ALL,))
    shapes, axes = bench.shapes, bench.resolved.batch_axes
    found = list(selection.others)
    for name in selection.tensors:
        if name in measured:
            continue
        if not shapes.is_float(name):
            reason = f"not floating point ({dtype_name(shapes.dtypes[name])})"
        elif name not in axes:
            reason = "no axis of it holds the samples"
        else:
            reason = "it was not among the layers"
        found.append(UnexposedTensor(name, reason))
    return tuple(found)

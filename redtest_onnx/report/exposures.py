"""What `expose` handed out: table and document."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.table import Table

from redtest_onnx.documents.base import Document, tool
from redtest_onnx.graph.model import Model, TensorSpec
from redtest_onnx.runtime.activations import ExposedModel, ExposedTensor
from redtest_onnx.runtime.shapes import WHOLE

_MOST_ROWS = 40


def exposure_table(exposed: ExposedModel) -> Table:
    """The new outputs with types and declared sizes; of many the first ones."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("output", overflow="fold")
    table.add_column("type and sizes")
    table.add_column("axis of samples", justify="right")
    for tensor in exposed.tensors[:_MOST_ROWS]:
        table.add_row(tensor.output, _spec(tensor), _axis_words(tensor.sample_axis))
    if len(exposed.tensors) > _MOST_ROWS:
        table.caption = f"{len(exposed.tensors) - _MOST_ROWS} more are in --json."
    return table


def exposure_document(
    model: Model, exposed: ExposedModel, output: Path | None, values: Path | None, samples: int
) -> Document:
    """The same for other programs."""
    return {
        "schema": "redtest-onnx/expose/1",
        "tool": tool(),
        "model": {"path": model.label, "sha256": model.sha256},
        "tensors": [_entry(tensor) for tensor in exposed.tensors],
        "not_exposed": [asdict(item) for item in exposed.others],
        "branches": list(exposed.branches),
        "output": None if output is None else str(output),
        "values": None if values is None else {"path": str(values), "samples": samples},
    }


def _axis_words(axis: int | None) -> str:
    if axis is None:
        return "-"
    return "all is one sample's" if axis == WHOLE else str(axis)


def _entry(tensor: ExposedTensor) -> dict[str, object]:
    """What a program needs to know; where all of a tensor is one sample's, no axis holds samples."""
    axis = None if tensor.sample_axis == WHOLE else tensor.sample_axis
    return {**asdict(tensor), "sample_axis": axis}


def _spec(tensor: ExposedTensor) -> str:
    return str(TensorSpec(tensor.output, tensor.dtype, tensor.shape))

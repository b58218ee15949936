"""What all JSON documents share: their head, layers, and numbers that JSON can hold."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from redtest_onnx.graph.cost import Cost
from redtest_onnx.graph.model import Model, TensorSpec, dtype_name
from redtest_onnx.graph.writing import write_atomic
from redtest_onnx.layers.elsewhere import Elsewhere
from redtest_onnx.layers.layer import Layer

Document = dict[str, Any]


def document_head(command: str, model: Model | None, cost: Cost | None) -> Document:
    """What every document begins with; without `model` where that is not known any more."""
    head: Document = {"schema": f"redtest-onnx/{command}/1", "tool": tool()}
    if model is None:
        return head
    return {
        **head,
        "model": {
            "path": str(model.path) if model.path else None,
            "sha256": model.sha256,
            "ir_version": model.proto.ir_version,
            "opsets": model.opsets,
            "producer": " ".join(filter(None, (model.proto.producer_name, model.proto.producer_version))),
            "inputs": [_spec(spec) for spec in model.inputs],
            "outputs": [_spec(spec) for spec in model.outputs],
            **({} if cost is None else asdict(cost)),
        },
    }


def layer_document(layer: Layer) -> Document:
    """One layer of the series."""
    fields = asdict(layer)
    return {
        **fields,
        "shape": list(layer.shape) if layer.shape is not None else None,
        "removable": layer.removable,
    }


def tool() -> Document:
    """Who wrote a document."""
    from importlib.metadata import version  # whose import tables without a document needn't wait for

    return {"name": "redtest-onnx", "version": version("redtest-onnx")}


def write_json(document: Document, target: str) -> None:
    """Write a document to a file, or to stdout for "-"."""
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        write_atomic(Path(target), lambda path: path.write_text(text, encoding="utf-8"))


def number(value: float | None) -> float | None:
    """JSON has no NaN: what is undefined is null."""
    return float(value) if value is not None and math.isfinite(value) else None


def plain(value: object) -> object:
    """A value as JSON can hold it."""
    return number(value) if isinstance(value, float) else value


def peak_rss_bytes() -> int | None:
    """Largest resident memory of this process so far; None where the system doesn't tell."""
    if os.name != "posix":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _spec(spec: TensorSpec) -> Document:
    shape = None if spec.shape is None else list(spec.shape)
    return {"name": spec.name, "dtype": dtype_name(spec.dtype), "shape": shape}


def inspect_document(
    model: Model,
    cost: Cost,
    layers: Iterable[Layer],
    others: Elsewhere | None = None,
    outputs: Iterable[Document] = (),
) -> Document:
    """What `inspect` found; `others` are parameters outside all layers, `outputs` says what each one is."""
    return {
        **document_head("inspect", model, cost),
        "layers": [layer_document(layer) for layer in layers],
        "elsewhere": None if others is None else asdict(others),
        "outputs": list(outputs),
    }

"""An analysis read back from the document that `analyze --json` wrote."""

from __future__ import annotations

import math
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from redtest_onnx.documents.base import Document
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model, first_line
from redtest_onnx.graph.reading import read_json
from redtest_onnx.layers.layer import Layer
from redtest_onnx.similarity.analyze import Analysis, AnalysisSettings, Redundancy, WithoutLargest

Kind = TypeVar("Kind")

_SCHEMA = "redtest-onnx/analyze/1"


@dataclass(frozen=True, eq=False)
class SavedAnalysis:
    """An analysis that was read, and the file's text.

    Attributes:
        analysis: without model and cost.
        document: what the file holds.
    """

    analysis: Analysis
    document: Document

    @property
    def label(self) -> str:
        """The model's file, as far as the analysis names it."""
        path = self.document["model"].get("path")
        return Path(path).name if isinstance(path, str) else "model"


def load_analysis(path: Path, model: Model) -> Analysis:
    """Read an analysis and hold it against the model.

    Raises:
        InputError: unreadable, no analysis, or of another model.
    """
    saved = read_analysis(path, model.label)
    if saved.document["model"]["sha256"] != model.sha256:
        raise InputError(
            f"was measured on another model than {model.label}",
            where=str(path),
            hint="analyze this model again",
        )
    return saved.analysis


def read_analysis(path: Path, label: str = "MODEL") -> SavedAnalysis:
    """Read an analysis by itself.

    Args:
        path: written by `analyze --json`.
        label: what the model is called in messages.

    Raises:
        InputError: unreadable, or no analysis.
    """
    document = read_json(path)
    if not isinstance(document, dict) or document.get("schema") != _SCHEMA:
        raise InputError(
            "is not an analysis",
            where=str(path),
            hint=f"write one with: redtest-onnx analyze {label} --json FILE",
        )
    try:
        _valid(str, document["model"]["sha256"])
        return SavedAnalysis(_analysis(document), document)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"is damaged, or was written by another version ({type(error).__name__}: {first_line(error)})",
            where=str(path),
            hint=f"write it again with: redtest-onnx analyze {label} --json FILE",
        ) from error


def _analysis(document: Document) -> Analysis:
    msrs, data, timing = document["msrs"], document["data"], document["timing"]
    similarity = _matrix(document["cka"])
    layers = tuple(_layer(entry) for entry in document["layers"])
    if similarity.shape != (len(layers), len(layers)):
        raise ValueError(f"{len(layers)} layers, matrix {similarity.shape}")
    names = {field.name for field in fields(AnalysisSettings)}
    if len({layer.name for layer in layers}) != len(layers):
        raise ValueError("two layers have one name")
    if [layer.index for layer in layers] != list(range(len(layers))):
        raise ValueError("its layers are not in order")
    return Analysis(
        layers=layers,
        similarity=similarity,
        redundancy=_valid(
            Redundancy,
            {
                **msrs,
                "value": _value(msrs["value"]),
                "per_batch": [_value(value) for value in msrs["per_batch"]],
                "undefined": msrs["undefined_pairs"],
            },
        ),
        settings=_valid(AnalysisSettings, {k: v for k, v in document["settings"].items() if k in names}),
        source=_valid(str, data["source"]),
        synthetic=_valid(bool, data["synthetic"]),
        labelled=_valid(bool, data["labels"]),
        samples=_valid(int, data["samples"]),
        batches=_valid(int, data["batches"]),
        features=tuple(_valid(int, entry["features"]) for entry in document["layers"]),
        null95=_value(document["null95"]),
        top_share=tuple(_value(entry["top_share"]) for entry in document["layers"]),
        dominated=_valid(tuple[str, ...], document["dominated"]),
        without_largest=_without_largest(document.get("without_largest")),
        forward_s=_valid(float, timing["forward_s"]),
        metric_s=_valid(float, timing["metric_s"]),
        hsic_batches=_batches(document.get("hsic_batches"), len(layers)),
    )


def _batches(entries: list[list[list[float | None]]] | None, layers: int) -> npt.NDArray[np.float64] | None:
    if entries is None:
        return None
    stack = np.array([_matrix(batch) for batch in entries])
    if len(stack) < 2 or stack.shape[1:] != (layers, layers):
        raise ValueError(f"{layers} layers, batches {stack.shape}")
    return stack


def _without_largest(entry: dict[str, Any] | None) -> WithoutLargest | None:
    if entry is None:
        return None
    adjacent = tuple(_value(value) for value in entry["adjacent"])
    return WithoutLargest(_valid(int, entry["samples"]), _value(entry["msrs"]), adjacent)


def _layer(entry: dict[str, Any]) -> Layer:
    said = {field.name: entry[field.name] for field in fields(Layer) if field.name in entry or _needed(field)}
    return _valid(Layer, said)


def _needed(field: Field[Any]) -> bool:
    """Whether a field has no default; documents of earlier versions may lack those that have."""
    return field.default is MISSING


def _valid(kind: type[Kind], value: Any) -> Kind:
    """A value of a document as what it should be.

    Raises:
        ValueError: it is something else.
    """
    from pydantic import TypeAdapter  # here, since few commands read an analysis back

    return TypeAdapter(kind).validate_python(value)


def _matrix(rows: list[list[float | None]]) -> npt.NDArray[np.float64]:
    return np.array([[_value(value) for value in row] for row in rows], np.float64)


def _value(value: float | None) -> float:
    """JSON has no NaN: null is undefined."""
    return math.nan if value is None else float(value)

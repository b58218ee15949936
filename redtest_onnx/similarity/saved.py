"""An analysis read back from the document that `analyze --json` wrote."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.layers.layer import Layer
from redtest_onnx.similarity.analyze import Analysis, AnalysisSettings, Redundancy, WithoutLargest

_SCHEMA = "redtest-onnx/analyze/1"


def load_analysis(path: Path, model: Model) -> Analysis:
    """Read an analysis and hold it against the model.

    Raises:
        InputError: unreadable, no analysis, or of another model.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", where=str(path)) from error
    except ValueError as error:
        raise InputError(f"is not JSON: {error}", where=str(path)) from error
    if not isinstance(document, dict) or document.get("schema") != _SCHEMA:
        raise InputError(
            "is no analysis", where=str(path), hint=f"write one with analyze {model.label} --json FILE"
        )
    try:
        return _analysis(document, model, path)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"is damaged, or was written by another version ({type(error).__name__}: {error})",
            where=str(path),
            hint=f"write it again with analyze {model.label} --json FILE",
        ) from error


def _analysis(document: dict[str, Any], model: Model, path: Path) -> Analysis:
    if document["model"]["sha256"] != model.sha256:
        raise InputError(
            f"was measured on another model than {model.label}",
            where=str(path),
            hint="analyze this model again",
        )
    msrs, data, timing = document["msrs"], document["data"], document["timing"]
    similarity = _matrix(document["cka"])
    layers = tuple(_layer(entry) for entry in document["layers"])
    if similarity.shape != (len(layers), len(layers)):
        raise ValueError(f"{len(layers)} layers, matrix {similarity.shape}")
    names = {field.name for field in fields(AnalysisSettings)}
    return Analysis(
        layers=layers,
        similarity=similarity,
        redundancy=Redundancy(
            value=_value(msrs["value"]),
            std=msrs["std"],
            standard_error=msrs["standard_error"],
            per_batch=tuple(_value(value) for value in msrs["per_batch"]),
            pairs=int(msrs["pairs"]),
            undefined=int(msrs["undefined_pairs"]),
            alpha=msrs["alpha"],
            threshold=msrs["threshold"],
            gate=msrs["gate"],
        ),
        settings=AnalysisSettings(**{k: v for k, v in document["settings"].items() if k in names}),
        source=data["source"],
        synthetic=data["synthetic"],
        labelled=data["labels"],
        samples=data["samples"],
        batches=data["batches"],
        features=tuple(entry["features"] for entry in document["layers"]),
        null95=_value(document["null95"]),
        top_share=tuple(_value(entry["top_share"]) for entry in document["layers"]),
        dominated=tuple(document["dominated"]),
        without_largest=_without_largest(document.get("without_largest")),
        forward_s=timing["forward_s"],
        metric_s=timing["metric_s"],
    )


def _without_largest(entry: dict[str, Any] | None) -> WithoutLargest | None:
    if entry is None:
        return None
    adjacent = tuple(_value(value) for value in entry["adjacent"])
    return WithoutLargest(entry["samples"], _value(entry["msrs"]), adjacent)


def _layer(entry: dict[str, Any]) -> Layer:
    values = {field.name: entry[field.name] for field in fields(Layer)}
    values["shape"] = None if values["shape"] is None else tuple(values["shape"])
    return Layer(**values)


def _matrix(rows: list[list[float | None]]) -> npt.NDArray[np.float64]:
    return np.array([[_value(value) for value in row] for row in rows], np.float64)


def _value(value: float | None) -> float:
    """JSON has no NaN: null is undefined."""
    return math.nan if value is None else float(value)

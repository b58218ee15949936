"""Analyses and comparisons as JSON documents."""

from __future__ import annotations

from dataclasses import asdict
from math import inf
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from redtest_onnx.documents.agreement import agreement_document, output_documents
from redtest_onnx.documents.base import (
    Document,
    document_head,
    layer_document,
    number,
    peak_rss_bytes,
    tool,
)
from redtest_onnx.graph.cost import Cost
from redtest_onnx.graph.model import Model

if TYPE_CHECKING:
    from redtest_onnx.similarity.analyze import Analysis, WithoutLargest
    from redtest_onnx.similarity.compare import Comparison
    from redtest_onnx.similarity.files import FileComparison
    from redtest_onnx.similarity.side_by_side import FileMeasures
    from redtest_onnx.similarity.tensors import TensorComparison


def analyze_document(model: Model | None, cost: Cost | None, analysis: Analysis, total_s: float) -> Document:
    """What `analyze` measured."""
    redundancy, settings = analysis.redundancy, analysis.settings
    return {
        **document_head("analyze", model, cost),
        "layers": [
            {**layer_document(layer), "features": features, "top_share": number(share)}
            for layer, features, share in zip(
                analysis.layers, analysis.features, analysis.top_share, strict=True
            )
        ],
        "cka": _matrix(analysis.similarity),
        "adjacent": [number(v) for v in analysis.adjacent],
        "msrs": {
            "value": number(redundancy.value),
            "std": number(redundancy.std),
            "standard_error": number(redundancy.standard_error),
            "per_batch": [number(v) for v in redundancy.per_batch],
            "pairs": redundancy.pairs,
            "undefined_pairs": redundancy.undefined,
            "alpha": redundancy.alpha,
            "threshold": redundancy.threshold,
            "gate": redundancy.gate,
        },
        "null95": number(analysis.null95),
        "dominated": list(analysis.dominated),
        "without_largest": _without_largest(analysis.without_largest),
        "data": {
            "source": analysis.source,
            "samples": analysis.samples,
            "batches": analysis.batches,
            "synthetic": analysis.synthetic,
            "labels": analysis.labelled,
        },
        "settings": asdict(settings),
        "timing": {
            "forward_s": analysis.forward_s,
            "metric_s": analysis.metric_s,
            "total_s": total_s,
        },
        "memory": {"peak_rss_bytes": peak_rss_bytes()},
    }


def compare_document(comparison: Comparison, titles: tuple[str, str]) -> Document:
    """What `compare` measured."""
    sides = zip(titles, comparison.sources, (comparison.rows, comparison.columns), strict=True)
    return {
        "schema": "redtest-onnx/compare/1",
        "tool": tool(),
        "sides": [{"name": name, "source": source, "layers": list(layers)} for name, source, layers in sides],
        "cka": [[number(value) for value in row] for row in comparison.similarity],
        "best": list(comparison.best),
        "data": {"samples": comparison.samples, "batches": comparison.batches},
        "settings": asdict(comparison.settings),
    }


def files_document(found: FileComparison, titles: tuple[str, str]) -> Document:
    """What `compare` measured of two files."""
    document: Document = {"schema": "redtest-onnx/compare/1", "tool": tool()}
    if found.layers is not None:
        document.update(compare_document(found.layers, titles))
    if found.files is not None:
        agreement = found.files.agreement
        document.update(
            before=_side(found.files.before),
            after=_side(found.files.after),
            agreement=agreement and agreement_document(agreement),
            outputs=output_documents(agreement) if agreement else [],
            evaluation={"source": found.files.source, "samples": found.files.samples},
            note=found.files.note,
        )
    if found.tensors is not None:
        document.update(_tensors(found.tensors))
    return document


def _side(side: FileMeasures) -> Document:
    return {
        **asdict(side.cost),
        "file_bytes": side.file_bytes,
        "latency_ms": asdict(side.latency),
        "accuracy": number(side.accuracy),
    }


def _tensors(found: TensorComparison) -> Document:
    first = found.first_divergent
    return {
        "tensors": [
            {
                **asdict(item),
                "snr_db": number(item.snr_db),
                "equal": item.snr_db == inf,
                "cosine": number(item.cosine),
                "largest_error": number(item.largest_error),
            }
            for item in found.tensors
        ],
        "first_divergent": None if first is None else first.first,
        "diverges_below_db": found.diverges_below,
        "unmatched": [list(names) for names in found.unmatched],
        "tensor_samples": found.samples,
    }


def _without_largest(without: WithoutLargest | None) -> Document | None:
    if without is None:
        return None
    adjacent = [number(value) for value in without.adjacent]
    return {"samples": without.samples, "msrs": number(without.msrs), "adjacent": adjacent}


def _matrix(values: npt.NDArray[np.float64]) -> list[list[float | None]]:
    return [[number(value) for value in row] for row in values]

"""Analyses and comparisons as JSON documents."""

from __future__ import annotations

from dataclasses import asdict
from math import inf, isinf
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
    from redtest_onnx.similarity.analyze import Analysis, AnalysisSettings, Redundancy, WithoutLargest
    from redtest_onnx.similarity.compare import Comparison
    from redtest_onnx.similarity.files import FileComparison
    from redtest_onnx.similarity.side_by_side import FileMeasures
    from redtest_onnx.similarity.tensors import TensorComparison

_MOST_VALUES = 50_000
"""Of the batches' HSIC in a document: 70 layers and ten batches. They are left out of larger ones."""


def analyze_document(model: Model | None, cost: Cost | None, analysis: Analysis, total_s: float) -> Document:
    """What `analyze` measured."""
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
        "hsic_batches": _batches(analysis.hsic_batches),
        "msrs": redundancy_document(analysis.redundancy),
        "null95": number(analysis.null95),
        "dominated": list(analysis.dominated),
        "unmeasured": [asdict(item) for item in analysis.unmeasured],
        "without_largest": _without_largest(analysis.without_largest),
        "data": {
            "source": analysis.source,
            "samples": analysis.samples,
            "batches": analysis.batches,
            "synthetic": analysis.synthetic,
            "labels": analysis.labelled,
        },
        "settings": settings_document(analysis.settings),
        "timing": {
            "forward_s": analysis.forward_s,
            "metric_s": analysis.metric_s,
            "total_s": total_s,
        },
        "memory": {"peak_rss_bytes": peak_rss_bytes()},
    }


def redundancy_document(redundancy: Redundancy) -> Document:
    """The MSRS and what it was summed with."""
    return {
        "value": number(redundancy.value),
        "std": number(redundancy.std),
        "standard_error": number(redundancy.standard_error),
        "per_batch": [number(v) for v in redundancy.per_batch],
        "pairs": redundancy.pairs,
        "undefined_pairs": redundancy.undefined,
        "alpha": _alpha(redundancy.alpha),
        "threshold": redundancy.threshold,
        "gate": redundancy.gate,
    }


def settings_document(settings: AnalysisSettings) -> Document:
    """How similarity was measured."""
    return {**asdict(settings), "alpha": _alpha(settings.alpha)}


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
        "settings": settings_document(comparison.settings),
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


def _alpha(alpha: float) -> float | str:
    """JSON has no infinity: a step is "inf"."""
    return "inf" if isinf(alpha) else float(alpha)


def _batches(stack: npt.NDArray[np.float64] | None) -> list[list[list[float | None]]] | None:
    """What another score of the batches needs, where that is not much."""
    return None if stack is None or stack.size > _MOST_VALUES else [_matrix(batch) for batch in stack]


def _matrix(values: npt.NDArray[np.float64]) -> list[list[float | None]]:
    return [[number(value) for value in row] for row in values]

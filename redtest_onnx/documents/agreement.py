"""Agreement of outputs as JSON."""

from __future__ import annotations

from redtest_onnx.documents.base import Document, number
from redtest_onnx.metrics.agreement.intervals import Interval
from redtest_onnx.metrics.agreement.summary import Agreement


def agreement_document(agreement: Agreement) -> Document:
    """The agreement of all outputs together; `value` is the verdict, that of the output that agrees least."""
    return {
        "value": number(agreement.value),
        "interval95": _ends(agreement.interval),
        "top1": number(agreement.top1),
        "cosine": number(agreement.cosine),
        "relative_l2": number(agreement.relative_l2),
    }


def output_documents(agreement: Agreement) -> list[Document]:
    """The agreement of each output by its kind."""
    return [
        {
            "name": part.name,
            "kind": part.kind,
            "axis": part.axis,
            "measure": part.measure,
            "agreement": number(part.agreement),
            "interval95": _ends(part.interval),
            "steers": part.steers,
            "tensors": list(part.tensors),
            "details": {key: number(value) for key, value in part.details.items()},
            "note": part.note,
        }
        for part in agreement.outputs
    ]


def _ends(interval: Interval | None) -> list[float] | None:
    """Lower and upper end."""
    return None if interval is None else list(interval)

"""Audits as JSON documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from redtest_onnx.auditing.baseline import SCHEMA
from redtest_onnx.documents.base import Document, document_head, number, tool

if TYPE_CHECKING:
    from redtest_onnx.auditing.run import Audit


def audit_document(audits: Sequence[Audit]) -> Document:
    """One audit, or several under `audits` with the verdict on all."""
    if len(audits) == 1:
        return _document(audits[0])
    return {
        "schema": SCHEMA,
        "tool": tool(),
        "verdict": "pass" if all(audit.passed for audit in audits) else "fail",
        "audits": [_document(audit) for audit in audits],
    }


def _document(audit: Audit) -> Document:
    return {
        **document_head("audit", audit.model, audit.cost),
        "profile": audit.profile.name,
        "verdict": "pass" if audit.passed else "fail",
        "findings": [
            {
                "rule": finding.rule,
                "name": finding.name,
                "severity": finding.severity,
                "message": finding.message,
                "node": finding.nodes[0] if finding.nodes else None,
                "nodes": list(finding.nodes),
                "tensors": list(finding.tensors),
                "fix": finding.fix,
                "fingerprint": finding.fingerprint,
                "suppressed": finding.suppressed,
                "known": finding.fingerprint in audit.known,
            }
            for finding in audit.findings
        ],
        "unchecked": list(audit.unchecked),
        "measured": {key: number(v) if isinstance(v, float) else v for key, v in audit.measured.items()},
    }

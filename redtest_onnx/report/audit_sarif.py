"""Audits as SARIF 2.1.0, for code scanning."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from redtest_onnx.auditing.findings import Finding
from redtest_onnx.auditing.registry import Rule, rules
from redtest_onnx.auditing.run import Audit
from redtest_onnx.documents.base import Document, tool
from redtest_onnx.report.audits import SHOWN, places
from redtest_onnx.text import plain

REPOSITORY = "https://github.com/redtest-onnx/redtest-onnx"
_LEVELS = {"error": "error", "warning": "warning", "note": "note"}
_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"


def rule_link(rule_id: str) -> str:
    """Where a rule is explained."""
    return f"{REPOSITORY}/blob/main/docs/reference/rules.md#{rule_id.lower()}"


def audit_sarif(audits: Sequence[Audit]) -> Document:
    """SARIF 2.1.0 with one run over all models, for code scanning."""
    every = rules()
    numbers = {rule.id: k for k, rule in enumerate(every)}
    driver = {
        "name": "redtest-onnx",
        "version": tool()["version"],
        "informationUri": REPOSITORY,
        "rules": [_sarif_rule(rule) for rule in every],
    }
    results = [
        _sarif_result(audit, finding, numbers[finding.rule]) for audit in audits for finding in audit.findings
    ]
    return {"$schema": _SARIF, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _sarif_rule(rule: Rule) -> Document:
    return {
        "id": rule.id,
        "name": "".join(part.capitalize() for part in rule.name.split("-")),
        "shortDescription": {"text": rule.name.replace("-", " ")},
        "fullDescription": {"text": rule.explanation},
        "helpUri": rule_link(rule.id),
        "help": {
            "text": f"{rule.explanation} Fix: {rule.fix}",
            "markdown": f"{rule.explanation}\n\n**Fix:** {rule.fix}\n\n[{rule.id}]({rule_link(rule.id)})",
        },
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _sarif_result(audit: Audit, finding: Finding, number: int) -> Document:
    # A binary file has no lines; code scanning wants one.
    physical = {
        "artifactLocation": {"uri": model_uri(audit.model.path)},
        "region": {"startLine": 1},
    }
    kind = "function" if finding.nodes else "variable"
    logical = [
        {"name": plain(name), "fullyQualifiedName": plain(name), "kind": kind}
        for name in (finding.nodes or finding.tensors)[:SHOWN]
    ]
    where = places(finding)
    text = f"{plain(finding.message)}{f' ({where})' if where else ''}. Fix: {plain(finding.fix)}"
    result: Document = {
        "ruleId": finding.rule,
        "ruleIndex": number,
        "level": _LEVELS[finding.severity],
        "message": {"text": text},
        "locations": [{"physicalLocation": physical, **({"logicalLocations": logical} if logical else {})}],
        "partialFingerprints": {"redtestOnnx/v1": finding.fingerprint},
        "baselineState": "unchanged" if finding.fingerprint in audit.known else "new",
    }
    if finding.suppressed is not None:
        result["suppressions"] = [{"kind": "external", "justification": plain(finding.suppressed)}]
    return result


def model_uri(path: Path | None) -> str:
    """A path relative to the working folder where it lies inside, percent-encoded."""
    if path is None:
        return "model.onnx"
    absolute = Path(os.path.abspath(path))
    inside = absolute.is_relative_to(Path.cwd())
    return quote(absolute.relative_to(Path.cwd()).as_posix()) if inside else absolute.as_uri()

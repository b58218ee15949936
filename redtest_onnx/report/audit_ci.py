"""Audits for continuous integration: JUnit XML, GitHub annotations, GitLab code quality."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from urllib.parse import unquote
from xml.etree import ElementTree

from redtest_onnx.auditing.findings import Finding
from redtest_onnx.auditing.registry import rules
from redtest_onnx.auditing.run import Audit
from redtest_onnx.report.annotations import Level, annotation
from redtest_onnx.report.audit_sarif import model_uri
from redtest_onnx.report.audits import places, verdict
from redtest_onnx.text import plain

_GITHUB: dict[str, Level] = {"error": "error", "warning": "warning", "note": "notice"}
_GITLAB = {"error": "critical", "warning": "major", "note": "info"}


def audit_junit(audits: Sequence[Audit]) -> str:
    """JUnit XML: a suite per model, a case per rule."""
    root = ElementTree.Element("testsuites", name="redtest-onnx audit")
    for audit in audits:
        cases = [(rule, [f for f in audit.findings if f.rule == rule.id]) for rule in rules()]
        failing = set(audit.failing)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=plain(audit.model.label),
            tests=str(len(cases)),
            failures=str(sum(any(f in failing for f in found) for _, found in cases)),
            errors="0",
            skipped=str(sum(bool(found) and all(map(_is_suppressed, found)) for _, found in cases)),
            time=f"{sum(audit.seconds.values()):.3f}",
        )
        for rule, found in cases:
            name = f"{rule.id} {rule.name}"
            case = ElementTree.SubElement(
                suite,
                "testcase",
                name=name,
                classname=plain(audit.model.label),
                time=f"{audit.seconds.get(rule.id, 0.0):.3f}",
            )
            bad = [finding for finding in found if finding in failing]
            if bad:
                failure = ElementTree.SubElement(
                    case, "failure", message=plain(bad[0].message), type=bad[0].severity
                )
                failure.text = "\n".join(map(_line, bad))
            elif found and all(map(_is_suppressed, found)):
                ElementTree.SubElement(case, "skipped", message=plain(found[0].suppressed or ""))
            rest = [finding for finding in found if finding not in failing]
            if rest:
                ElementTree.SubElement(case, "system-out").text = "\n".join(map(_line, rest))
    ElementTree.indent(root)
    return str(ElementTree.tostring(root, encoding="unicode", xml_declaration=True)) + "\n"


def _is_suppressed(finding: Finding) -> bool:
    return finding.suppressed is not None


def _line(finding: Finding) -> str:
    where = places(finding)
    known = f" [suppressed: {plain(finding.suppressed)}]" if finding.suppressed else ""
    return f"{plain(finding.message)}{f' ({where})' if where else ''}. Fix: {plain(finding.fix)}{known}"


def audit_github(audits: Iterable[Audit]) -> str:
    """Workflow commands that GitHub shows as annotations of the files."""
    lines = []
    for audit in audits:
        path = unquote(model_uri(audit.model.path))
        for finding in audit.findings:
            if finding.suppressed is None and finding.fingerprint not in audit.known:
                where = places(finding)
                text = f"{finding.message}{f' ({where})' if where else ''}. Fix: {finding.fix}"
                title = f"{finding.rule} {finding.name}"
                lines.append(annotation(_GITHUB[finding.severity], title, text, path))
        lines.append(
            annotation("notice" if audit.passed else "error", "redtest-onnx audit", verdict(audit), path)
        )
    return "".join(lines)


def audit_gitlab(audits: Iterable[Audit]) -> str:
    """GitLab's code quality report: a JSON list with an entry per finding."""
    entries = []
    for audit in audits:
        path = unquote(model_uri(audit.model.path))
        for finding in audit.findings:
            if finding.suppressed is None:
                where = places(finding)
                entries.append(
                    {
                        "description": f"{plain(finding.message)}{f' ({where})' if where else ''}. "
                        f"Fix: {plain(finding.fix)}",
                        "check_name": f"{finding.rule} {finding.name}",
                        "fingerprint": _fingerprint(path, finding.fingerprint),
                        "severity": _GITLAB[finding.severity],
                        "location": {"path": plain(path), "lines": {"begin": 1}},
                    }
                )
    return json.dumps(entries, indent=2) + "\n"


def _fingerprint(*parts: str) -> str:
    """GitLab tells findings apart by this alone, over all models."""
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]

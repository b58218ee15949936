"""Audits as JSON documents, Markdown, SARIF and JUnit XML."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from redtest_onnx.auditing.findings import Finding
from redtest_onnx.auditing.registry import Rule, rules
from redtest_onnx.auditing.run import Audit
from redtest_onnx.documents.base import Document, tool

_SHOWN = 5  # nodes or tensors that text formats name
_LEVELS = {"error": "error", "warning": "warning", "note": "note"}
_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"
# What XML 1.0 can't hold, and what terminals and pull requests would act on.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def plain(text: str) -> str:
    """Text on one line without control characters, whatever tensors are called."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text)


def places(finding: Finding) -> str:
    """The first nodes, else tensors, of a finding."""
    names = finding.nodes or finding.tensors
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(plain(name) for name in names[:_SHOWN]) + more


def audit_markdown(audits: Iterable[Audit]) -> str:
    """A comment for a pull request."""
    lines: list[str] = []
    for audit in audits:
        verdict = "passed" if audit.passed else f"**failed** ({len(audit.failing)} findings)"
        lines += [
            f"### {_cell(audit.model.label)}: {verdict}",
            "",
            f"Profile {_cell(audit.profile.name)}.",
            "",
        ]
        shown = [finding for finding in audit.findings if finding.suppressed is None]
        if shown:
            lines += ["| rule | severity | what | where | fix |", "|---|---|---|---|---|"]
        for finding in shown:
            known = " (known)" if finding.fingerprint in audit.known else ""
            cells = [
                f"{finding.rule} {finding.name}",
                finding.severity + known,
                *map(_cell, (finding.message, places(finding), finding.fix)),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text that Markdown shows as it is."""
    escaped = re.sub(r"([\\`*_{}\[\]<>()#+\-!|~&@:])", r"\\\1", plain(text))
    return escaped or " "


def audit_sarif(audits: Sequence[Audit]) -> Document:
    """SARIF 2.1.0 with one run over all models, for code scanning."""
    every = rules()
    numbers = {rule.id: k for k, rule in enumerate(every)}
    driver = {
        "name": "redtest-onnx",
        "version": tool()["version"],
        "informationUri": "https://github.com/redtest-onnx/redtest-onnx",
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
        "help": {"text": rule.fix},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _sarif_result(audit: Audit, finding: Finding, number: int) -> Document:
    # A binary file has no lines; code scanning wants one.
    physical = {
        "artifactLocation": {"uri": _uri(audit.model.path)},
        "region": {"startLine": 1},
    }
    kind = "function" if finding.nodes else "variable"
    logical = [
        {"name": plain(name), "fullyQualifiedName": plain(name), "kind": kind}
        for name in (finding.nodes or finding.tensors)[:_SHOWN]
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


def _uri(path: Path | None) -> str:
    """A path relative to the working folder where it lies inside, percent-encoded."""
    if path is None:
        return "model.onnx"
    absolute = Path(os.path.abspath(path))
    inside = absolute.is_relative_to(Path.cwd())
    return quote(absolute.relative_to(Path.cwd()).as_posix()) if inside else absolute.as_uri()


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
            skipped="0",
        )
        for rule, found in cases:
            name = f"{rule.id} {rule.name}"
            case = ElementTree.SubElement(suite, "testcase", name=name, classname=plain(audit.model.label))
            bad = [finding for finding in found if finding in failing]
            if bad:
                failure = ElementTree.SubElement(
                    case, "failure", message=plain(bad[0].message), type=bad[0].severity
                )
                failure.text = "\n".join(map(_line, bad))
            rest = [finding for finding in found if finding not in failing]
            if rest:
                ElementTree.SubElement(case, "system-out").text = "\n".join(map(_line, rest))
    ElementTree.indent(root)
    return str(ElementTree.tostring(root, encoding="unicode", xml_declaration=True)) + "\n"


def _line(finding: Finding) -> str:
    where = places(finding)
    known = f" [suppressed: {plain(finding.suppressed)}]" if finding.suppressed else ""
    return f"{plain(finding.message)}{f' ({where})' if where else ''}. Fix: {plain(finding.fix)}{known}"

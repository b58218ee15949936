"""Audits as text, tables and Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from redtest_onnx.auditing.findings import Finding
from redtest_onnx.auditing.run import Audit
from redtest_onnx.report.numbers import count, plural, size
from redtest_onnx.report.table import Column, Table
from redtest_onnx.report.table_formats import markdown_text
from redtest_onnx.report.tables import at_sizes
from redtest_onnx.text import digits, plain

SHOWN = 5  # nodes or tensors that text formats name


def places(finding: Finding) -> str:
    """The first nodes, else tensors, of a finding."""
    names = finding.nodes or finding.tensors
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(plain(name) for name in names[:SHOWN]) + more


def audit_table(audit: Audit, key: str = "findings", title: str = "Findings") -> Table:
    """Findings that count, worst first."""
    columns = (
        Column("rule", "rule"),
        Column("severity", "severity"),
        Column("message", "what", "name"),
        Column("where", "where", "name", drop=1),
        Column("fix", "fix", "name", drop=2),
    )
    rows = tuple(
        (
            f"{finding.rule} {finding.name}",
            finding.severity + (" (known)" if finding.fingerprint in audit.known else ""),
            finding.message,
            places(finding),
            finding.fix,
        )
        for finding in audit.findings
        if finding.suppressed is None
    )
    return Table(key, title, columns, rows)


def audit_text(audits: Iterable[Audit]) -> str:
    """What was found, line by line."""
    lines = []
    for audit in audits:
        lines += [f"{plain(audit.model.label)}, audited for {audit.profile.name}", audit_facts(audit)]
        for finding in audit.findings:
            if finding.suppressed is None:
                where = places(finding)
                lines.append(
                    f"  {finding.rule} {finding.severity}: {plain(finding.message)} {where}".rstrip()
                )
                lines.append(f"    {plain(finding.fix)}")
        lines.append(verdict(audit))
    return "\n".join(lines) + "\n"


def verdict(audit: Audit) -> str:
    """The verdict in a line, with budgets that were not held against any figure."""
    left = f"; not checked: {', '.join(audit.unchecked)}" if audit.unchecked else ""
    if audit.passed:
        return f"PASSED: {plain(audit.model.label)}{left}"
    found = ", ".join(sorted({finding.rule for finding in audit.failing}))
    return f"FAILED: {plain(audit.model.label)}, {plural(len(audit.failing), 'finding')} ({found}){left}"


def audit_facts(audit: Audit) -> str:
    """What was measured, in a line."""
    facts = [
        f"{count(audit.cost.parameters)} parameters",
        f"{count(audit.cost.macs)} MACs{at_sizes(audit.cost)}",
        f"file {size(audit.measured['file_bytes'])}",
        f"activations {size(audit.cost.peak_activation_bytes)}",
    ]
    if latency := audit.measured["latency_ms"]:
        facts.append(f"latency p50 {digits(latency['p50'])} ms, p99 {digits(latency['p99'])} ms")
    if audit.measured["fallback_share"] is not None:
        facts.append(
            f"{1 - audit.measured['fallback_share']:.0%} of the nodes on {audit.profile.target.provider} "
            f"in about {plural(audit.measured['partitions'], 'piece')}"
        )
    if provider := audit.measured["provider"]:
        facts.append(
            f"{', '.join(provider['providers'])} runs {provider['taken']} of {provider['nodes']} nodes"
            f"{_apart(provider['agreement']['relative_l2'])}"
        )
    return "  " + ", ".join(facts)


def _apart(difference: float | None) -> str:
    return "" if difference is None else f" and differs from the CPU by {difference:.1e}"


def audit_markdown(audits: Iterable[Audit]) -> str:
    """A comment for a pull request."""
    lines: list[str] = []
    for audit in audits:
        verdict = "passed" if audit.passed else f"**failed** ({plural(len(audit.failing), 'finding')})"
        lines += [
            f"### {markdown_text(audit.model.label)}: {verdict}",
            "",
            f"Profile {markdown_text(audit.profile.name)}.",
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
                *map(markdown_text, (finding.message, places(finding), finding.fix)),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)

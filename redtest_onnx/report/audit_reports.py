"""Reports of audits: the format of each file, by its suffix, and the text in that format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from redtest_onnx.auditing.documents import audit_document
from redtest_onnx.auditing.run import Audit
from redtest_onnx.errors import OutputError
from redtest_onnx.report.audit_ci import audit_github, audit_gitlab, audit_junit
from redtest_onnx.report.audit_sarif import audit_sarif
from redtest_onnx.report.audits import audit_markdown, audit_text
from redtest_onnx.report.page.others import audit_page
from redtest_onnx.report.page.provenance import Provenance
from redtest_onnx.report.page.render import render_page

AuditFormat = Literal["text", "json", "sarif", "junit", "markdown", "github", "gitlab", "html"]
AUDIT_FORMATS: tuple[AuditFormat, ...] = get_args(AuditFormat)
REPORT_SUFFIXES: Mapping[str, tuple[AuditFormat, ...]] = {
    ".txt": ("text",),
    ".log": ("text",),
    ".json": ("json", "sarif", "gitlab"),
    ".sarif": ("sarif",),
    ".xml": ("junit",),
    ".md": ("markdown",),
    ".html": ("html",),
}


def report_files(paths: Sequence[Path], form: AuditFormat) -> list[tuple[Path, AuditFormat]]:
    """The format of each file: by its suffix, or the one asked for where the suffix allows it.

    Args:
        paths: files to write.
        form: the format asked for.

    Raises:
        OutputError: a suffix that no format has.
    """
    found: list[tuple[Path, AuditFormat]] = []
    for path in paths:
        allowed = REPORT_SUFFIXES.get(path.suffix.lower())
        if allowed is None:
            raise OutputError(
                f"{path.suffix or 'no suffix'} is not a format of reports",
                where=str(path),
                hint=f"name the file with one of {', '.join(REPORT_SUFFIXES)}",
            )
        found.append((path, form if form in allowed else allowed[0]))
    return found


def audit_report(audits: Sequence[Audit], form: AuditFormat, provenance: Provenance) -> str:
    """The whole report as text."""
    makers: Mapping[AuditFormat, Callable[[], str]] = {
        "text": lambda: audit_text(audits),
        "json": lambda: json.dumps(audit_document(audits), indent=2, allow_nan=False) + "\n",
        "sarif": lambda: json.dumps(audit_sarif(audits), indent=2) + "\n",
        "junit": lambda: audit_junit(audits),
        "markdown": lambda: audit_markdown(audits),
        "github": lambda: audit_github(audits),
        "gitlab": lambda: audit_gitlab(audits),
        "html": lambda: render_page(audit_page(audits, provenance)),
    }
    return makers[form]()

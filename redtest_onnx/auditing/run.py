"""Run the rules over a model and judge what they find by the profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from fnmatch import fnmatchcase
from time import perf_counter
from typing import Any, Literal

from redtest_onnx.auditing.documents import audit_document
from redtest_onnx.auditing.findings import Finding, Problem, Severity, fingerprint
from redtest_onnx.auditing.profile import Profile
from redtest_onnx.auditing.registry import Rule, rules
from redtest_onnx.auditing.subject import Subject
from redtest_onnx.auditing.support import operator_counts
from redtest_onnx.documents.base import Document
from redtest_onnx.documents.result import Result
from redtest_onnx.graph.cost import Cost
from redtest_onnx.graph.model import Model
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Progress

FailOn = Literal["error", "warning", "note"]
_RANK: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True, repr=False)
class Audit(Result):
    """What an audit found.

    Attributes:
        model: the audited model.
        profile: what it was audited for.
        findings: worst first; suppressed ones included.
        cost: of one sample.
        measured: facts by name, in the units of their names.
        known: fingerprints that a baseline knows.
        fail_on: the mildest severity that fails.
        seconds: time that each rule took, by its id; a rule pays for what it is the first to measure.
    """

    model: Model
    profile: Profile
    findings: tuple[Finding, ...]
    cost: Cost
    measured: Mapping[str, Any]
    known: frozenset[str] = frozenset()
    fail_on: FailOn = "error"
    seconds: Mapping[str, float] = field(default_factory=dict)

    def summary(self) -> str:
        """The verdict and the number of findings."""
        verdict = "passed" if self.passed else f"failed by {len(self.failing)} of them"
        return f"{len(self.findings)} findings for {self.profile.name}, {verdict}"

    def to_dict(self) -> Document:
        """The document of `audit --json`."""
        return audit_document([self])

    def records(self) -> list[dict[str, Any]]:
        """One entry per finding."""
        return [
            {
                "rule": finding.rule,
                "severity": finding.severity,
                "message": finding.message,
                "fix": finding.fix,
                "suppressed": finding.suppressed,
            }
            for finding in self.findings
        ]

    @property
    def failing(self) -> tuple[Finding, ...]:
        """Findings that count: not suppressed, not in the baseline, bad enough."""
        return tuple(
            finding
            for finding in self.findings
            if finding.suppressed is None
            and finding.fingerprint not in self.known
            and _RANK[finding.severity] <= _RANK[self.fail_on]
        )

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Budgets of the profile whose figure is not known: not measured, or of unknown sizes."""
        limits, peak = self.profile.budgets, self.cost.peak_activation_bytes
        figures = {**self.measured, "macs_m": self.cost.macs, "activations_mb": peak, "memory_mb": peak}
        names = [name for name, limit in limits if limit is not None]
        return tuple(name for name in names if name in figures and figures[name] is None)

    @property
    def passed(self) -> bool:
        """The verdict."""
        return not self.failing


def audit(
    bench: Workbench,
    profile: Profile,
    *,
    timed: bool = True,
    known: frozenset[str] = frozenset(),
    fail_on: FailOn = "error",
    given: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> Audit:
    """Check a model against a profile.

    Args:
        bench: the model and samples for it; synthetic where there are none.
        profile: the deployment target.
        timed: whether latency is measured.
        known: fingerprints of findings that don't fail any more.
        fail_on: the mildest severity that fails.
        given: options that commands in fixes need to read the same samples; their file alone if absent.
        progress: called after each rule.

    Raises:
        InputError: the profile names something that is not there.
    """
    subject = Subject(bench, profile, timed, given)
    found: list[Finding] = []
    every = rules()
    seconds: dict[str, float] = {}
    for done, rule in enumerate(every):
        severity = profile.severities.get(rule.id, rule.severity)
        begin = perf_counter()
        if severity != "off" and (subject.runs or not rule.runs):
            found.extend(_judged(rule, problem, severity, profile) for problem in rule.check(subject))
        seconds[rule.id] = perf_counter() - begin
        if progress:
            progress(done + 1, len(every), "auditing")
    found.sort(key=lambda finding: (_RANK[finding.severity], finding.rule))
    return Audit(
        bench.model, profile, tuple(found), subject.cost, _measured(subject), known, fail_on, seconds
    )


def _judged(rule: Rule, problem: Problem, severity: Severity, profile: Profile) -> Finding:
    finding = Finding(
        rule.id,
        rule.name,
        severity,
        problem.message,
        problem.nodes,
        problem.tensors,
        problem.fix or rule.fix,
        fingerprint(rule.id, problem.cause),
    )
    for suppression in profile.suppress:
        expired = suppression.expires is not None and suppression.expires <= date.today()
        places = (*finding.nodes, *finding.tensors) or ("",)
        if suppression.rule == rule.id and not expired and _all_fit(places, suppression.where):
            return replace(finding, suppressed=suppression.reason)
    return finding


def _all_fit(places: tuple[str, ...], pattern: str) -> bool:
    return all(fnmatchcase(place, pattern) for place in places)


def _measured(subject: Subject) -> dict[str, Any]:
    """Facts for reports."""
    latency = subject.latency if subject.runs else None
    analysis = subject.analysis if subject.runs else None
    split = subject.split
    return {
        "file_bytes": subject.model.file_bytes,
        "operators": dict(sorted(operator_counts(subject.model.graph).items())),
        "latency_ms": None
        if latency is None
        else {"p50": latency.p50, "p90": latency.p90, "p99": latency.p99},
        "cold_start_ms": subject.cold_start if subject.runs else None,
        "measured_activation_bytes": subject.measured_memory if subject.runs else None,
        "msrs": None if analysis is None else analysis.redundancy.value,
        "pq_index": subject.pq_index,
        "fallback_share": None if split is None else split.share,
        "partitions": None if split is None else split.partitions,
        "provider": None if not subject.runs or subject.provider is None else subject.provider.to_dict(),
        "synthetic_inputs": subject.data.synthetic,
    }

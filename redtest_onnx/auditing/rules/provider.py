"""Rules about what the execution providers that were asked for really make of the model."""

from __future__ import annotations

from collections.abc import Iterator

from redtest_onnx.auditing.findings import Problem
from redtest_onnx.auditing.registry import rule
from redtest_onnx.auditing.subject import Subject
from redtest_onnx.graph import operators as ops

_DIFFERENCE = 1e-2


@rule(
    "RT029",
    "provider-fallback",
    "warning",
    explanation="ONNX Runtime gave these nodes to the CPU when it loaded the model for the providers that "
    "were asked for; every border between the two costs copies.",
    fix="Replace the operator in the model's code, or choose another provider or other options of it.",
    runs=True,
)
def provider_fallback(subject: Subject) -> Iterator[Problem]:
    """Nodes that the providers left, as measured."""
    report = subject.provider
    if report is None:
        return
    for operator, nodes in sorted(report.left.items(), key=lambda item: -len(item[1])):
        share = len(nodes) / max(report.nodes, 1)
        names = ", ".join(report.providers)
        yield Problem(
            f"{names} left {operator} to the CPU: {len(nodes)} of {report.nodes} nodes, {share:.0%}",
            operator,
            nodes,
        )


@rule(
    "RT030",
    "provider-differs",
    "error",
    explanation="On the providers that were asked for the outputs are not those of the CPU: the precision is "
    "too low for this model, or a kernel is wrong.",
    fix="Ask the provider for a higher precision, or compare layer by layer what differs.",
    runs=True,
)
def provider_differs(subject: Subject) -> Iterator[Problem]:
    """Outputs on the providers against the CPU's."""
    report = subject.provider
    if report is not None and not report.agreement.relative_l2 <= _DIFFERENCE:
        yield Problem(
            f"outputs on {', '.join(report.providers)} differ from the CPU's by "
            f"{report.agreement.relative_l2:.1e} of their norm, at most {_DIFFERENCE:g} is allowed",
            "difference",
        )


@rule(
    "RT031",
    "support-table-wrong",
    "note",
    explanation="The profile says that the target takes these operators, but the provider that was loaded "
    "left them: its version is older than the table, or it takes them with some attributes only.",
    fix="Trust what was measured; update the provider, or list the operators in the profile.",
    runs=True,
)
def support_table_wrong(subject: Subject) -> Iterator[Problem]:
    """The profile's table against what was measured."""
    report, split = subject.provider, subject.split
    if report is None or split is None:
        return
    there = {ops.qualified(node) for node in subject.model.graph.node}
    for operator, nodes in report.left.items():
        if operator in there and operator not in split.left:
            yield Problem(f"{operator} is listed as supported, {len(nodes)} nodes were left", operator, nodes)

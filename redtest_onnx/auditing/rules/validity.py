"""Rules about the file itself: is it a valid model, and does it load?"""

from __future__ import annotations

from collections.abc import Iterator

from redtest_onnx.auditing.findings import Problem
from redtest_onnx.auditing.registry import rule
from redtest_onnx.auditing.subject import Subject
from redtest_onnx.auditing.support import every_node, label

# Domains that runtimes know besides the standard ones; what lies in others needs a library of its own.
KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"})
MICROSOFT = "com.microsoft"


@rule(
    "RT001",
    "invalid-model",
    "error",
    explanation="onnx.checker with full type and shape inference refuses the file. Some runtimes load it "
    "all the "
    "same, others don't, and what they make of it differs.",
    fix="Export it again with a newer exporter, or correct the node that the message names.",
)
def invalid_model(subject: Subject) -> Iterator[Problem]:
    """The full check of onnx."""
    if subject.invalid is not None:
        yield Problem(subject.invalid, cause="checker")


@rule(
    "RT002",
    "runtime-refuses",
    "error",
    explanation="ONNX Runtime on this machine can't load the model or fails to run it.",
    fix="Update onnxruntime, or export for an operator set and for operators that this version has.",
)
def runtime_refuses(subject: Subject) -> Iterator[Problem]:
    """Loading and one run in ONNX Runtime."""
    if subject.refused is not None:
        yield Problem(subject.refused, cause="load")


@rule(
    "RT004",
    "custom-operator",
    "warning",
    explanation="Operators outside the standard domains need their own library wherever the model runs.",
    fix="Ship the library that registers them, or export without them.",
)
def custom_operator(subject: Subject) -> Iterator[Problem]:
    """Domains that no runtime knows by itself."""
    local = {function.domain for function in subject.model.proto.functions}
    found: dict[str, list[str]] = {}
    for node in every_node(subject.model.graph):
        if node.domain not in KNOWN_DOMAINS | {MICROSOFT} | local:
            found.setdefault(node.domain, []).append(label(node))
    for domain, nodes in found.items():
        yield Problem(f"{len(nodes)} nodes are of the domain {domain!r}", domain, tuple(nodes))


@rule(
    "RT005",
    "runtime-specific-operator",
    "warning",
    explanation="Operators of com.microsoft run in ONNX Runtime only; other runtimes refuse the file.",
    fix="Save the model before ONNX Runtime's optimiser, or deploy it with ONNX Runtime.",
)
def runtime_specific_operator(subject: Subject) -> Iterator[Problem]:
    """com.microsoft where the target is something else."""
    if subject.profile.target.runtime == "onnxruntime":
        return
    nodes = tuple(label(node) for node in every_node(subject.model.graph) if node.domain == MICROSOFT)
    if nodes:
        runtime = subject.profile.target.runtime
        yield Problem(f"{len(nodes)} nodes need ONNX Runtime, the target is {runtime}", MICROSOFT, nodes)

"""Rules about the target: will it take the model, and how much of it?"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from redtest_onnx.auditing.findings import Problem
from redtest_onnx.auditing.reduced_build import missing, read_config
from redtest_onnx.auditing.registry import rule
from redtest_onnx.auditing.subject import Subject
from redtest_onnx.auditing.support import count_of, every_node, label, operator_counts
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.model import TensorSpec, dtype_name
from redtest_onnx.runtime.guesses import guessed_sizes

_FIX_SHAPE = ("python", "-m", "onnxruntime.tools.make_dynamic_shape_fixed")


@rule(
    "RT010",
    "opset-too-new",
    "error",
    explanation="The runtime on the target does not know the operator set that the model declares.",
    fix="Export for an older operator set, or convert the model with onnx.version_converter.",
)
def opset_too_new(subject: Subject) -> Iterator[Problem]:
    """The default domain's operator set against the profile."""
    limit, found = subject.profile.target.max_opset, subject.model.opsets.get("ai.onnx", 0)
    if limit is not None and found > limit:
        yield Problem(f"operator set {found}, the target knows up to {limit}", "opset")


@rule(
    "RT011",
    "ir-too-new",
    "error",
    explanation="The runtime on the target refuses files of a newer IR version, whatever they hold.",
    fix="Set a lower `ir_version` where the model needs nothing newer: "
    "onnx.helper.make_model(ir_version=...).",
)
def ir_too_new(subject: Subject) -> Iterator[Problem]:
    """The IR version against the profile."""
    limit, found = subject.profile.target.max_ir, subject.model.proto.ir_version
    if limit is not None and found > limit:
        yield Problem(f"IR version {found}, the target knows up to {limit}", "ir")


@rule(
    "RT020",
    "unsupported-operator",
    "warning",
    explanation="The provider does not take these operators. They fall back to the CPU, and every border "
    "between "
    "the two costs copies; without a fallback the model does not run.",
    fix="Replace the operator in the model's code, or choose another provider.",
)
def unsupported_operator(subject: Subject) -> Iterator[Problem]:
    """Nodes that the provider leaves."""
    split, target = subject.split, subject.profile.target
    if split is None:
        return
    for name, nodes in sorted(split.left.items(), key=lambda item: -len(item[1])):
        share = len(nodes) / max(split.nodes, 1)
        count = count_of(len(nodes), "node", "nodes")
        yield Problem(f"{target.provider} does not take {name}: {count}, {share:.0%} of all", name, nodes)


@rule(
    "RT021",
    "fallback",
    "error",
    explanation="More of the graph than the profile allows runs outside the target's provider, or it is "
    "cut into "
    "more pieces.",
    fix="Mend what RT020 names, the operators with the most nodes first.",
)
def fallback(subject: Subject) -> Iterator[Problem]:
    """Share and number of pieces against the profile."""
    split, target, budgets = subject.split, subject.profile.target, subject.profile.budgets
    if split is None:
        return
    limit = 0.0 if target.fallback == "none" else budgets.fallback_share
    if limit is not None and split.share > limit:
        yield Problem(f"{split.share:.0%} of the nodes fall back, at most {limit:.0%} are allowed", "share")
    if budgets.partitions is not None and split.partitions > budgets.partitions:
        yield Problem(
            f"the graph is cut into about {split.partitions} pieces on {target.provider}, at most "
            f"{budgets.partitions} are allowed",
            "partitions",
        )


@rule(
    "RT022",
    "unsupported-type",
    "warning",
    explanation="The target does not compute with tensors of these element types.",
    fix="Cast them in the model's code, or quantise or convert the model.",
)
def unsupported_type(subject: Subject) -> Iterator[Problem]:
    """Element types of all tensors against the profile."""
    allowed = subject.profile.target.types
    if allowed is None:
        return
    found: dict[str, list[str]] = {}
    for name, dtype in subject.shapes.dtypes.items():
        if dtype and dtype_name(dtype) not in allowed:
            found.setdefault(dtype_name(dtype), []).append(name)
    for kind, tensors in found.items():
        of_kind = "tensor is" if len(tensors) == 1 else "tensors are"
        yield Problem(f"{len(tensors):,} {of_kind} {kind}", kind, tensors=tuple(tensors))


@rule(
    "RT023",
    "dynamic-shape",
    "note",
    explanation="A dimension is open. Accelerators compile for fixed sizes and refuse or recompile; memory "
    "can't "
    "be planned.",
    fix="Fix the dimensions of the inputs.",
)
def dynamic_shape(subject: Subject) -> Iterator[Problem]:
    """Open dimensions of the inputs, where the target can live with them."""
    if not subject.profile.target.fixed_shapes:
        yield from _open_dimensions(subject)


def _open_dimensions(subject: Subject) -> Iterator[Problem]:
    open_inputs = [
        spec
        for spec in subject.model.inputs
        if spec.shape is None or any(not isinstance(size, int) for size in spec.shape)
    ]
    if not open_inputs:
        return
    text = ", ".join(f"{one.name} {one}" for one in open_inputs)
    yield Problem(
        f"open dimensions: {text}",
        "inputs",
        tensors=tuple(one.name for one in open_inputs),
        fix=_fixing(subject, open_inputs) if subject.runs else None,
    )


def _fixing(subject: Subject, open_inputs: list[TensorSpec]) -> str:
    """The commands that fix the open dimensions at the sizes of the usual inputs."""
    commands = []
    source, target = subject.label, subject.beside("fixed")
    for spec in open_inputs:
        sizes = ",".join(str(size) for size in subject.usual[spec.name].shape)
        options = ["--input_name", spec.name, "--input_shape", sizes]
        commands.append(shlex.join([*_FIX_SHAPE, *options, source, target]))
        source = target
    guesses = guessed_sizes(subject.data)
    note = "  # sizes are a guess; put in those that you use" if guesses else ""
    return " && ".join(commands) + note


@rule(
    "RT024",
    "shapes-must-be-fixed",
    "error",
    explanation="The target compiles the model for fixed sizes and does not take one with open dimensions.",
    fix="Fix the dimensions of the inputs.",
)
def shapes_must_be_fixed(subject: Subject) -> Iterator[Problem]:
    """The same where the profile demands it."""
    if subject.profile.target.fixed_shapes:
        yield from _open_dimensions(subject)


@rule(
    "RT025",
    "control-flow",
    "error",
    explanation="The target does not run If, Loop or Scan.",
    fix="Export with a fixed control path: a constant condition, an unrolled loop.",
)
def control_flow(subject: Subject) -> Iterator[Problem]:
    """Subgraphs where the profile has none."""
    if subject.profile.target.control_flow:
        return
    nodes = [n for n in every_node(subject.model.graph) if ops.qualified(n) in ops.CONTROL_FLOW]
    if nodes:
        kinds = sorted({node.op_type for node in nodes})
        yield Problem(f"{', '.join(kinds)}: {len(nodes)} nodes", "control", tuple(map(label, nodes)))


@rule(
    "RT026",
    "forbidden-operator",
    "error",
    explanation="The profile forbids these operators.",
    fix="Replace the operator in the model's code.",
)
def forbidden_operator(subject: Subject) -> Iterator[Problem]:
    """Operators against the profile's list."""
    for pattern in subject.profile.operators.forbidden:
        nodes = [n for n in every_node(subject.model.graph) if fnmatchcase(ops.qualified(n), pattern)]
        if nodes:
            yield Problem(f"{pattern}: {len(nodes)} nodes", pattern, tuple(map(label, nodes)))


@rule(
    "RT027",
    "required-operator-missing",
    "error",
    explanation="The profile asks for an operator that the model does not use, such as a quantised one.",
    fix="Run the conversion that brings it in, quantisation for instance.",
)
def required_operator_missing(subject: Subject) -> Iterator[Problem]:
    """The other way round."""
    used = operator_counts(subject.model.graph)
    for name in subject.profile.operators.required:
        if name not in used:
            yield Problem(f"there is no {name}", name)


@rule(
    "RT028",
    "not-in-reduced-build",
    "error",
    explanation="The reduced ONNX Runtime build, as its required_operators.config says, lacks these "
    "operators.",
    fix="Build ONNX Runtime again with the operators of this model: redtest-onnx audit "
    "--write-operators FILE.",
)
def not_in_reduced_build(subject: Subject) -> Iterator[Problem]:
    """Operators against a reduced build's configuration."""
    path = subject.profile.target.required_operators
    if path is None:
        return
    for name, nodes in missing(subject.model, read_config(Path(path))).items():
        yield Problem(f"{name} is not in {path}: {len(nodes)} nodes", name, nodes)

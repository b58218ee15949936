"""Rules about leftovers of training and export, and what people need to know of a file."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import onnx

from redtest_onnx.auditing.findings import Problem
from redtest_onnx.auditing.registry import rule
from redtest_onnx.auditing.subject import Subject
from redtest_onnx.auditing.support import every_node, label
from redtest_onnx.graph import operators as ops

_REMOVE = ("python", "-m", "onnxruntime.tools.remove_initializer_from_input")
_LICENCE, _AUTHOR = ("license", "licence", "model_license"), ("author", "authors", "model_author")


@rule(
    "RT080",
    "training-mode",
    "error",
    explanation="The graph was exported in training mode: Dropout drops, BatchNormalization uses the batch "
    "at hand.",
    fix="Call model.eval() before the export.",
)
def training_mode(subject: Subject) -> Iterator[Problem]:
    """Nodes that behave as in training."""
    nodes = [label(node) for node in every_node(subject.model.graph) if _trains(subject, node)]
    if nodes:
        yield Problem(f"{len(nodes)} nodes are in training mode", "training", tuple(nodes))


@rule(
    "RT081",
    "random-operator",
    "warning",
    explanation="The graph draws random numbers when it runs.",
    fix="Export in evaluation mode; move sampling out of the model.",
)
def random_operator(subject: Subject) -> Iterator[Problem]:
    """Operators that draw numbers."""
    nodes = [label(node) for node in every_node(subject.model.graph) if ops.qualified(node) in ops.RANDOM]
    if nodes:
        yield Problem(f"{len(nodes)} nodes draw random numbers", "random", tuple(nodes))


@rule(
    "RT082",
    "dead-node",
    "warning",
    explanation="Nothing needs what these nodes compute.",
    fix="Remove them; any ONNX optimiser does.",
)
def dead_node(subject: Subject) -> Iterator[Problem]:
    """Nodes whose results nothing reads."""
    index = subject.index
    needed: set[int] = set()
    stack = [index.producer[name] for name in index.outputs if name in index.producer]
    while stack:
        node = stack.pop()
        if node in needed:
            continue
        needed.add(node)
        stack.extend(index.producer[name] for name in index.reads[node] if name in index.producer)
    dead = [label(node) for i, node in enumerate(index.nodes) if i not in needed]
    if dead:
        yield Problem(f"{len(dead)} nodes compute what nothing reads", "dead", tuple(dead))


@rule(
    "RT083",
    "weights-as-inputs",
    "note",
    explanation="Initializers are listed as inputs, too. Callers could overwrite them, so runtimes can't "
    "fold them "
    "into the graph.",
    fix="Export with an IR version of 4 or newer, or remove them from the inputs.",
)
def weights_as_inputs(subject: Subject) -> Iterator[Problem]:
    """Inputs that are initializers."""
    names = tuple(v.name for v in subject.model.graph.input if v.name in subject.index.initializers)
    if names:
        command = [*_REMOVE, "--input", subject.label, "--output", subject.beside("constant")]
        yield Problem(
            f"{len(names)} weights are inputs as well", "inputs", tensors=names, fix=shlex.join(command)
        )


@rule(
    "RT084",
    "no-licence",
    "note",
    explanation="The file does not say under which licence it may be used, or who made it.",
    fix='Add metadata: onnx.helper.set_model_props(model, {"license": "...", "author": "..."}).',
)
def no_licence(subject: Subject) -> Iterator[Problem]:
    """Metadata that people look for."""
    keys = {entry.key.lower() for entry in subject.model.proto.metadata_props}
    missing = [what for what, names in (("licence", _LICENCE), ("author", _AUTHOR)) if keys.isdisjoint(names)]
    if missing:
        yield Problem(f"the metadata name no {' and no '.join(missing)}", "metadata")


def _trains(subject: Subject, node: onnx.NodeProto) -> bool:
    index = subject.index
    if node.op_type == "BatchNormalization":
        return ops.attribute(node, "training_mode", 0) == 1
    if node.op_type != "Dropout" or len(node.input) < 3 or not node.input[2]:
        return False
    stored = index.initializers.get(node.input[2])
    producer = index.producer.get(node.input[2])
    if stored is None and producer is not None:
        value = ops.attribute(index.nodes[producer], "value")
        stored = value if isinstance(value, onnx.TensorProto) else None
    # A flag that is fed decides at run time; only a constant one is a leftover.
    return stored is not None and bool(subject.model.value(stored).any())

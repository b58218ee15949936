"""Say at once, and by name, what of a model can't be trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import onnx

from redtest_onnx.bridge.binding import unknown_attributes
from redtest_onnx.bridge.registry import MICROSOFT, find, normalised, versions
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import subgraphs

_QUANTISED = ("Quantize", "Dequantize", "QLinear", "QAttention", "QGemm", "QMoE", "Integer", "NBits", "Bnb4")
_KNOWN_DOMAINS = frozenset({"", MICROSOFT, "ai.onnx.ml", "ai.onnx.preview.training"})


def check_operators(graph: onnx.GraphProto, opsets: Mapping[str, int], label: str) -> None:
    """Check that every operator has a kernel that takes its attributes.

    Raises:
        InputError: names all operators that have none, and what to do.
    """
    problems: dict[str, Counter[str]] = {}
    for node in all_nodes(graph):
        if (problem := _problem(node, opsets)) is not None:
            kind, name = problem
            problems.setdefault(kind, Counter())[name] += 1
    if problems:
        found = "; ".join(f"{kind}: {_listed(counts)}" for kind, counts in problems.items())
        raise InputError(
            f"can't be trained in PyTorch because of its operators ({found})",
            where=label,
            hint="; ".join(_HINTS[kind] for kind in problems),
        )


_HINTS = {
    "quantised": "fine-tune the float model and quantise the result again",
    "custom": "export the model without custom operators, or cut it in front of them",
    "too old": "raise the operator set with onnx.version_converter.convert_version",
    "unknown": "export the model without them, or for another operator set",
    "attributes": "export the model without these settings",
}


def is_quantised(node: onnx.NodeProto) -> bool:
    """Whether an operator works on quantised values."""
    return any(mark in node.op_type for mark in _QUANTISED)


def _problem(node: onnx.NodeProto, opsets: Mapping[str, int]) -> tuple[str, str] | None:
    domain = normalised(node.domain)
    name = f"{domain}:{node.op_type}" if domain else node.op_type
    operator = find(domain, node.op_type, opsets[domain])
    if operator is not None:
        unknown = unknown_attributes(operator, node, opsets[domain])
        return ("attributes", f"{name}({', '.join(unknown)})") if unknown else None
    if is_quantised(node):
        return "quantised", name
    if known := versions(domain, node.op_type):
        return "too old", f"{name} of operator set {opsets[domain]}, known from {known[0]}"
    return ("unknown" if domain in _KNOWN_DOMAINS else "custom"), name


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count}x)" if count > 1 else name for name, count in sorted(counts.items()))


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of its subgraphs."""
    for node in graph.node:
        yield node
        for child in subgraphs([node]):
            yield from all_nodes(child)

"""ONNX Runtime's `required_operators.config`: which operators a reduced build holds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from redtest_onnx.auditing.support import every_node
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.reading import read_text

Required = dict[str, dict[int, frozenset[str]]]
"""Operators by domain and operator set."""

_LINE = re.compile(r"^(?P<domain>[^;]+);(?P<opsets>[\d,\s]+);(?P<operators>.+)$")
_MOST_DIGITS = 9
_TYPES = re.compile(r"\{(?:[^{}]|\{[^{}]*\})*\}")


def read_config(path: Path) -> Required:
    """Read a configuration; type reductions are allowed and ignored.

    Raises:
        InputError: it can't be read, or a line is none of `domain;opset;Op1,Op2`; the line is named.
    """
    text = read_text(path)
    found: Required = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith(("#", "!")):
            continue
        match = _LINE.match(_TYPES.sub("", line))
        if match is None:
            raise _no_line(path, number)
        names = frozenset(name.strip() for name in match["operators"].split(",") if name.strip())
        for opset in match["opsets"].split(","):
            if not opset.strip().isdecimal() or len(opset) > _MOST_DIGITS:
                raise _no_line(path, number)
            opsets = found.setdefault(match["domain"].strip(), {})
            opsets[int(opset)] = opsets.get(int(opset), frozenset()) | names
    return found


def _no_line(path: Path, number: int) -> InputError:
    """What the line says is not repeated: the file may be another than its owner meant."""
    return InputError(
        "is not a line of a required_operators.config",
        where=f"{path}, line {number}",
        hint="a line is domain;opset;operators, such as ai.onnx;13;Conv,Relu",
    )


def missing(model: Model, config: Required) -> dict[str, tuple[str, ...]]:
    """Nodes that a reduced build can't run, by operator; operators are looked up by their opset."""
    found: dict[str, list[str]] = {}
    for node in every_node(model.graph):
        domain = node.domain or "ai.onnx"
        version = model.opsets.get(domain, 1)
        if node.op_type not in config.get(domain, {}).get(version, frozenset()):
            found.setdefault(f"{domain};{version};{node.op_type}", []).append(node.name or node.output[0])
    return {name: tuple(nodes) for name, nodes in found.items()}


def write_config(models: Iterable[Model]) -> str:
    """The configuration that a build needs to run models, one line per domain and operator set."""
    wanted: dict[tuple[str, int], set[str]] = {}
    for model in models:
        for node in every_node(model.graph):
            domain = node.domain or "ai.onnx"
            wanted.setdefault((domain, model.opsets.get(domain, 1)), set()).add(node.op_type)
    lines = [
        f"{domain};{opset};{','.join(sorted(operators))}"
        for (domain, opset), operators in sorted(wanted.items())
    ]
    return "\n".join(lines) + "\n"

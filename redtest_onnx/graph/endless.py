"""Loops that never end, as far as the file itself tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from redtest_onnx.errors import InputError
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.model import Model, subgraphs, tensor_elements

_ENDLESS = 1 << 31
"""So many turns take hours, whatever a turn does; loops that end by their condition alone have more."""

Stored = Mapping[str, onnx.TensorProto]


def check_loops(model: Model) -> None:
    """Refuse a Loop without a number of turns whose condition is true for good: it would never end.

    Conditions that are computed are not judged.

    Raises:
        InputError: with the node.
    """
    _check(model, model.graph.node, _stored(model.graph, {}))
    for function in model.proto.functions:
        _check(model, function.node, _constants(function.node))


def _check(model: Model, nodes: Iterable[onnx.NodeProto], stored: Stored) -> None:
    for node in nodes:
        for body in subgraphs([node]):
            inside = _stored(body, stored)
            if ops.qualified(node) == "Loop" and _never_ends(model, node, body, stored, inside):
                raise InputError(
                    "it has no number of turns, and its condition is true for good: it never ends",
                    where=f"{model.label}, node {node.name or 'Loop'!r} (Loop)",
                    hint="give it a number of turns, or a condition that its body computes",
                )
            _check(model, body.node, inside)


def _never_ends(
    model: Model, node: onnx.NodeProto, body: onnx.GraphProto, stored: Stored, inside: Stored
) -> bool:
    turns, condition = (*node.input, "", "")[:2]
    if turns and ((count := _number(model, stored.get(turns))) is None or count < _ENDLESS):
        return False
    if condition and not _number(model, stored.get(condition)):
        return False
    makers = {name: one for one in body.node for name in one.output}
    names = [value.name for value in body.input]
    again = body.output[0].name if body.output else ""
    while (maker := makers.get(again)) is not None and ops.qualified(maker) == "Identity" and maker.input:
        again = maker.input[0]
    return again in names[1:2] or (again not in names and bool(_number(model, inside.get(again))))


def _number(model: Model, tensor: onnx.TensorProto | None) -> int | None:
    """The value of a stored number or truth value; None if there is none."""
    kinds = (onnx.TensorProto.INT64, onnx.TensorProto.BOOL)
    if tensor is None or tensor.data_type not in kinds or tensor_elements(tensor.dims) != 1:
        return None
    return int(model.value(tensor).item())


def _stored(graph: onnx.GraphProto, outside: Stored) -> dict[str, onnx.TensorProto]:
    """What a graph stores or sees stored; names of its own hide those outside."""
    hidden = {value.name for value in graph.input} | {name for node in graph.node for name in node.output}
    seen = {name: tensor for name, tensor in outside.items() if name not in hidden}
    return {**seen, **{tensor.name: tensor for tensor in graph.initializer}, **_constants(graph.node)}


def _constants(nodes: Iterable[onnx.NodeProto]) -> dict[str, onnx.TensorProto]:
    found = {}
    for node in nodes:
        value = ops.attribute(node, "value") if ops.qualified(node) == "Constant" else None
        if isinstance(value, onnx.TensorProto) and node.output:
            found[node.output[0]] = value
    return found

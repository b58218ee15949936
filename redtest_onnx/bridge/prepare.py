"""Bring a model into the form the bridge runs: local functions inlined, all stored tensors at the top."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx
import onnx.inliner

from redtest_onnx.bridge.refusal import all_nodes, is_quantised
from redtest_onnx.bridge.registry import find, normalised
from redtest_onnx.bridge.stored import StoredTensor, is_constant, stored_tensors
from redtest_onnx.bridge.untie import split
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model, subgraphs
from redtest_onnx.graph.reduced import without_functions, without_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedGraph:
    """A graph without stored tensors of its own, and the tensors it reads.

    Attributes:
        graph: the nodes; no initializers and no Constant nodes are left, in subgraphs neither.
        stored: the tensors by the names under which the graph reads them.
        copies: original initializer by the name of each untied copy.
        writable: the names whose values the file can take back; those inside functions it can't.
        opsets: operator set versions by domain, the default domain as "".
    """

    graph: onnx.GraphProto
    stored: Mapping[str, StoredTensor]
    copies: Mapping[str, str]
    writable: frozenset[str]
    opsets: Mapping[str, int]


def prepare(model: Model, untied: Collection[str]) -> PreparedGraph:
    """Prepare a model; the model itself stays as it is and its weights are not copied.

    Raises:
        InputError: sparse initializers, or functions that can't be inlined.
    """
    _refuse_sparse(model)
    proto = _without_weights(model)
    copies = split(proto.graph, untied)
    proto = _expanded(without_functions(proto, model.label))
    stored = {
        name: StoredTensor(name, name, model.graph, tensor) for name, tensor in model.initializers.items()
    }
    for copy, original in copies.items():
        stored[copy] = StoredTensor(copy, copy, model.graph, model.initializers[original])
    writable = {name for name, item in stored_tensors(model.graph).items() if item.writable}
    stored |= _hoist(proto.graph, model.initializers)
    return PreparedGraph(
        proto.graph,
        stored,
        copies,
        frozenset(writable.union(copies)),
        versions_by_domain(proto),
    )


def versions_by_domain(proto: onnx.ModelProto) -> dict[str, int]:
    """Operator set versions; the default domain is the empty name."""
    return {normalised(o.domain): o.version for o in proto.opset_import}


def _refuse_sparse(model: Model) -> None:
    if sparse := [tensor.values.name for tensor in model.graph.sparse_initializer]:
        raise InputError(
            f"sparse initializers can't be trained: {', '.join(sparse)}",
            where=model.label,
            hint="store them dense; zeros can be kept by masking their gradients",
        )


def _without_weights(model: Model) -> onnx.ModelProto:
    """The model with its initializers declared as inputs instead: nodes only, cheap to copy."""
    source = model.graph
    fed = (value for value in source.input if value.name not in model.initializers)
    proto = without_weights(model, fed)
    proto.graph.output.extend(source.output)
    proto.graph.value_info.extend(source.value_info)
    return proto


def _expanded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with operators that have no kernel, but a definition by simpler ones, replaced by it."""
    opsets = versions_by_domain(proto)
    wanted = {
        (node.domain, node.op_type)
        for node in all_nodes(proto.graph)
        if not is_constant(node)
        and not is_quantised(node)
        and find(node.domain, node.op_type, opsets[normalised(node.domain)]) is None
        and _has_definition(node, opsets[normalised(node.domain)])
    }
    if not wanted:
        return proto
    try:
        return onnx.inliner.inline_selected_functions(proto, sorted(wanted), inline_schema_functions=True)
    except (RuntimeError, TypeError) as error:
        # ONNX can't expand all uses, and before 1.19 none; the operators are then refused by name.
        log.debug("operators %s can't be expanded: %s", wanted, error)
        return proto


def _has_definition(node: onnx.NodeProto, version: int) -> bool:
    try:
        schema = onnx.defs.get_schema(node.op_type, version, normalised(node.domain))
    except onnx.defs.SchemaError:
        return False
    # The names are missing from the stubs of onnx.
    return any(getattr(schema, name) for name in ("has_function", "has_context_dependent_function"))


def _hoist(graph: onnx.GraphProto, taken: Collection[str]) -> dict[str, StoredTensor]:
    """Take the stored tensors out of a graph and its subgraphs, in place, renaming where names repeat."""
    found = stored_tensors(graph, taken)
    for item in found.values():
        if item.name != item.local:
            _rename(item.graph, item.local, item.name)
    _strip(graph)
    return found


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new
        for child in subgraphs([node]):
            _rename(child, old, new)
    for value in graph.output:
        if value.name == old:
            value.name = new


def _strip(graph: onnx.GraphProto) -> None:
    kept = [node for node in graph.node if not is_constant(node)]
    del graph.node[:]
    graph.node.extend(kept)
    del graph.initializer[:]
    for child in subgraphs(graph.node):
        _strip(child)

"""What is no valid model is refused when it is read: with the node or the tensor, before anything is done."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping

import onnx

from redtest_onnx.errors import InputError
from redtest_onnx.graph.endless import check_loops
from redtest_onnx.graph.functions import check_functions
from redtest_onnx.graph.index import reads
from redtest_onnx.graph.model import (
    Model,
    first_line,
    is_external,
    sparse_tensors,
    stored_tensors,
    subgraphs,
)
from redtest_onnx.graph.reduced import with_weights_as_inputs
from redtest_onnx.graph.runtime_operators import runtime_only_operators, without_runtime_only
from redtest_onnx.graph.stored import loadable
from redtest_onnx.graph.tensor_checks import check_attributes, check_sparse, check_tensor, check_type
from redtest_onnx.graph.text import broken_text
from redtest_onnx.graph.tolerance import with_inferred_shapes, with_shapes

log = logging.getLogger(__name__)

_BROKEN = "export it again, or repair it with the tool that wrote it"


def check(model: Model) -> None:
    """Check a model that was just read and whose structure is sound, see `check_structure`.

    Raises:
        InputError: invalid, or external data that is missing, too short or outside the model's
            folder.
    """
    check_functions(model)
    _check_order(model)
    _check_branches(model, model.graph)
    _check_types(model, model.graph)
    for tensor in stored_tensors(model.proto):
        check_tensor(model, tensor)
    check_attributes(model)
    for sparse in sparse_tensors(model.proto):
        check_sparse(model, sparse)
    check_loops(model)
    _check_schema(model)


def full_check(model: Model) -> None:
    """Run `onnx.checker` with full shape and type inference.

    Raises:
        InputError: with the checker's own message.
    """
    external = any(is_external(tensor) for tensor in stored_tensors(model.proto))
    try:
        proto = with_inferred_shapes(with_weights_as_inputs(model.proto))
        if external or proto is not model.proto or runtime_only_operators(model.proto):
            checked: onnx.ModelProto | str | bytes = without_runtime_only(proto)
        else:
            checked = loadable(model)
        onnx.checker.check_model(checked, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise InputError(f"fails onnx.checker: {first_line(error)}", where=model.label) from error


def _twice(names: Iterable[str]) -> str | None:
    """The first name that comes more than once."""
    counts = Counter(filter(None, names))
    return next((name for name, count in counts.items() if count > 1), None)


def _check_order(model: Model) -> None:
    """Refuse nodes that read a tensor that no earlier node produces; ONNX requires topological order."""
    graph = model.graph
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    ready = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    ready.update(t.values.name for t in graph.sparse_initializer)
    for i, node in enumerate(graph.node):
        for name in reads(node):
            if name in ready or makers.get(name, i) < i:
                continue
            where = f"{model.label}, node {node.name or node.op_type!r}"
            if name not in makers:
                raise InputError(f"it reads {name!r}, which nothing makes", where=where, hint=_BROKEN)
            if not _may_be_sorted(graph, makers):
                raise InputError(f"its input {name!r} depends on its own output", where=where, hint=_BROKEN)
            raise InputError(
                f"it reads {name!r}, which a later node makes: nodes must stand in the order they run in",
                where=where,
                hint="sort the graph, with onnx_graphsurgeon's Graph.toposort() for example",
            )


def _may_be_sorted(graph: onnx.GraphProto, makers: Mapping[str, int]) -> bool:
    """Whether there is an order in which the nodes can run."""
    import networkx as nx  # which sound models do without

    edges = ((makers[name], i) for i, node in enumerate(graph.node) for name in reads(node) if name in makers)
    return bool(nx.is_directed_acyclic_graph(nx.DiGraph(edges)))


def check_structure(model: Model) -> None:
    """Refuse what would make every later stage guess.

    Raises:
        InputError: naming what is missing or there twice.
    """
    graph = model.graph
    if not model.proto.ir_version or not (graph.node or graph.input):
        raise InputError(
            "not an ONNX model: it holds no graph",
            where=model.label,
            hint="export or download it again; the file must hold a serialised ModelProto",
        )
    if (field := broken_text(model.proto)) is not None:
        raise InputError(
            f"holds text that is not UTF-8, in {field}",
            where=model.label,
            hint="export or download it again; ONNX files hold UTF-8 only",
        )
    if not graph.output:
        raise InputError("the graph has no outputs", where=model.label, hint="export the model again")
    if not model.proto.opset_import:
        raise InputError("no operator set is declared", where=model.label, hint="export the model again")
    if twice := _twice(name for node in graph.node for name in node.output):
        raise InputError(f"two nodes make the same tensor {twice!r}", where=model.label, hint=_BROKEN)
    if twice := _twice(node.name for node in graph.node if node.op_type != "Constant"):
        raise InputError(
            f"two nodes are called {twice!r}, which ONNX Runtime refuses",
            where=model.label,
            hint="give every node a name of its own, or none",
        )


def _check_branches(model: Model, graph: onnx.GraphProto) -> None:
    """Refuse an If whose branches give more or fewer results than it has, as ONNX Runtime does."""
    for node in graph.node:
        if node.op_type != "If":
            continue
        for attribute in node.attribute:
            if attribute.HasField("g") and len(attribute.g.output) != len(node.output):
                raise InputError(
                    f"it has {len(node.output)} outputs, its {attribute.name} {len(attribute.g.output)}",
                    where=f"{model.label}, node {node.name or 'If'!r} (If)",
                    hint=_BROKEN,
                )
    for child in subgraphs(graph.node):
        _check_branches(model, child)


def _check_types(model: Model, graph: onnx.GraphProto) -> None:
    """Refuse declared unknown element types."""
    for info in (*graph.input, *graph.output, *graph.value_info):
        check_type(info.type.tensor_type.elem_type, f"{model.label}, tensor {info.name!r}")
    for child in subgraphs(graph.node):
        _check_types(model, child)


def _check_schema(model: Model) -> None:
    if beyond := runtime_only_operators(model.proto):
        log.info("%s: ONNX has no schema for %s; ONNX Runtime decides", model.label, ", ".join(beyond))
    try:
        onnx.checker.check_model(without_runtime_only(with_shapes(with_weights_as_inputs(model.proto))))
    except (onnx.checker.ValidationError, ValueError) as error:
        raise InputError(
            f"not a valid ONNX model: {first_line(error)}",
            where=model.label,
            hint=_BROKEN,
        ) from error

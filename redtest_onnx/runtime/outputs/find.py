"""Find out what each output of a model is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.model import Model, TensorSpec
from redtest_onnx.graph.signature import state_inputs
from redtest_onnx.runtime.outputs.holds import OutputGraph, extent, kind_of, rank_of
from redtest_onnx.runtime.outputs.kinds import (
    SCORES,
    JudgedTensor,
    Kind,
    ModelOutput,
    OutputKind,
    check_output_kinds,
)
from redtest_onnx.runtime.outputs.order import orderless_picks
from redtest_onnx.runtime.outputs.rows import DataDependentPart, data_dependent_part
from redtest_onnx.runtime.outputs.text import position_mask
from redtest_onnx.runtime.outputs.trace import trace_output

if TYPE_CHECKING:
    from redtest_onnx.runtime.workbench import Workbench

_CACHE_WORDS = re.compile(r"(^|[._/])(present|past|cache)|key_values|kv_cache", re.IGNORECASE)
_MOST_PARTS = 8


def find_outputs(bench: Workbench) -> tuple[ModelOutput, ...]:
    """Tell for each output what it holds and how two models are compared there.

    Args:
        bench: the model; the kinds that its options name go before what is found, and whether the data has a
            class per sample decides where the graph does not.

    Raises:
        InputError: the user names an output or an axis that is not there.
    """
    model, kinds = bench.view.model, dict(bench.options.output_kinds)
    axes = bench.resolved.batch_axes
    orderless = orderless_picks(bench)
    graph = OutputGraph(model, bench.index, bench.shapes, axes, bench.data.labelled, bench.mask, orderless)
    ranks = {spec.name: rank_of(graph, spec) for spec in model.outputs}
    check_output_kinds(kinds, ranks)
    found = [_output(graph, spec, kinds.get(spec.name)) for spec in model.outputs]
    found = _siblings(graph, found, kinds)
    others = any(output.steers for output in found if not _is_cache(model, output.name))
    return tuple(
        replace(output, tensors=(), steers=False, note="a cache: it follows the layers in front of it")
        if others and _is_cache(model, output.name) and output.name not in kinds
        else output
        for output in found
    )


def _output(graph: OutputGraph, spec: TensorSpec, said: OutputKind | None) -> ModelOutput:
    name, index = spec.name, graph.index
    rank = rank_of(graph, spec)
    if said is not None and said.kind != "detections":
        axis = said.axis
        if axis is None and said.kind in SCORES:
            axis = _usual_axis(graph, name, said.kind, rank or 2)
        if axis is not None:
            axis %= rank or axis + 1
        tensor = _judged(graph, name, said.kind, axis)
        steers = said.kind != "ignore"
        return ModelOutput(name, said.kind, axis, "the user says so", (tensor,), steers)
    if name not in index.activations:
        return ModelOutput(
            name,
            "ignore",
            None,
            "no weights act on it",
            (),
            steers=False,
            note="not judged: it does not depend on the layers",
        )
    part = data_dependent_part(index, graph.shapes, name, graph.orderless.get(name, frozenset()))
    if part is not None:
        return _in_front(graph, name, part)
    if rank is None or spec.dtype == 0:
        return _container(graph, name)
    kind, axis, why = kind_of(graph, name, rank)
    if kind == "values" and not _is_cache(graph.model, name) and (parts := _columns(graph, name, rank)):
        return ModelOutput(name, "values", None, "parts of different kinds side by side", parts)
    return ModelOutput(name, kind, axis, why, (_judged(graph, name, kind, axis),))


def _siblings(
    graph: OutputGraph, found: list[ModelOutput], kinds: Mapping[str, OutputKind]
) -> list[ModelOutput]:
    """Second look: heads of detectors beside one another are numbers, not classes.

    Maps of several sizes are raw heads; a linear output with as many rows as a softmax output are its boxes.
    """
    maps = {o.name: graph.shapes.sizes.get(o.name, ()) for o in found if o.kind == "dense"}
    extents = {extent(sizes, found_axis(found, name)) for name, sizes in maps.items()}
    sure = [o for o in found if o.why.startswith(("softmax", "log-softmax"))]
    result = []
    for output in found:
        raw = output.why.startswith(("a linear operator", "a convolution")) and output.name not in kinds
        beside = any(
            other.kind == output.kind
            and _positions(graph, other) == _positions(graph, output)
            and other.kind in ("tokens", "dense")
            for other in sure
        )
        if raw and ((output.kind == "dense" and len(extents) > 1) or beside):
            why = "a raw head beside others" if not beside else "numbers beside a softmax over as many rows"
            tensor = _judged(graph, output.name, "values", None)
            output = ModelOutput(output.name, "values", None, why, (tensor,))
        result.append(output)
    return result


def found_axis(found: list[ModelOutput], name: str) -> int:
    """The axis of classes of one of the outputs; 1 where it has none."""
    return next((o.axis for o in found if o.name == name and o.axis is not None), 1)


def _positions(graph: OutputGraph, output: ModelOutput) -> int:
    sizes = graph.shapes.sizes.get(output.name, ())
    return extent(sizes, output.axis if output.axis is not None else 1)


def _in_front(graph: OutputGraph, name: str, part: DataDependentPart) -> ModelOutput:
    """An output whose rows depend on values: the tensors in front of that part stand for it."""
    tensors = []
    # Layers behind a choice of as many rows change these, which keep their places while it is the same.
    itself = [(name, "", 0)] if part.layers_behind and part.keeps_sizes else []
    for tensor, reader, position in (*part.front, *itself):
        rank = len(graph.shapes.sizes.get(tensor, (0, 0)))
        kind, axis, why = kind_of(graph, tensor, rank)
        # Rows of all positions together look like samples: only a softmax tells that they hold classes.
        sure = kind in SCORES and why.startswith(("softmax", "log-softmax"))
        judged = _judged(graph, tensor, kind if sure else "values", axis if sure else None)
        tensors.append(replace(judged, reader=(reader, position)) if reader else judged)
    names = ", ".join(tensor for tensor, _, _ in part.front)
    names += "; and at the output, since layers lie behind" if itself else ""
    return ModelOutput(
        name,
        "detections",
        None,
        f"{part.name} picks rows by value",
        tuple(tensors),
        sets=True,
        layers_behind=part.layers_behind,
        note=f"compared in front of {part.name}: {names}",
    )


def _container(graph: OutputGraph, name: str) -> ModelOutput:
    """A list, a table, something that may be missing: tensors inside are compared by what they are."""
    trace = trace_output(graph.index, graph.shapes, name, 2, graph.opset)
    if "ai.onnx.ml:ZipMap" in trace.behind:
        return ModelOutput(name, "classes", 1, "a table of scores", (_judged(graph, name, "classes", 1),))
    node = graph.index.nodes[graph.index.producer[name]] if name in graph.index.producer else None
    if node is not None and node.op_type == "Optional" and node.input:
        inside = node.input[0]
        kind, axis, why = kind_of(graph, inside, len(graph.shapes.sizes.get(inside, (0, 0))))
        judged = replace(_judged(graph, inside, kind, axis), name=name)
        return ModelOutput(name, kind, axis, why, (judged,))
    return ModelOutput(
        name, "elements", None, "a list or something that may be missing", (_judged(graph, name, "elements"),)
    )


def _columns(graph: OutputGraph, name: str, rank: int) -> tuple[JudgedTensor, ...]:
    """Parts that a concatenation puts side by side, if they are of different scales: boxes beside scores."""
    trace = trace_output(graph.index, graph.shapes, name, rank, graph.opset)
    if trace.maker != "other" or trace.node is None:
        return ()
    node = graph.index.nodes[trace.node]
    if node.op_type != "Concat" or not 2 <= len(node.input) <= _MOST_PARTS:
        return ()
    made = graph.shapes.sizes.get(node.output[0], ())
    own = int(str(ops.attribute(node, "axis", 0))) % max(len(made), 1)
    axis = _followed(graph, name, rank, node.output[0], own)
    inputs = [graph.shapes.sizes.get(tensor, ()) for tensor in node.input]
    if axis is None or axis == graph.sample_axes.get(name) or any(len(s) != len(made) for s in inputs):
        return ()
    makers = {_ending(graph, tensor) for tensor in node.input if tensor in graph.index.activations}
    if len(makers) < 2:
        return ()  # of one kind: levels of a pyramid, directions
    parts, start = [], 0
    for tensor, sizes in zip(node.input, inputs, strict=True):
        stop = start + sizes[own]
        part = _judged(graph, name, "values", None)
        if tensor in graph.index.activations:
            parts.append(replace(part, columns=(start, stop), column_axis=axis))
        start = stop
    return tuple(parts)


def _ending(graph: OutputGraph, tensor: str) -> str:
    """What ends in a tensor, as far as that tells its scale."""
    rank = len(graph.shapes.sizes.get(tensor, (0, 0)))
    trace = trace_output(graph.index, graph.shapes, tensor, rank, graph.opset)
    functions = [kind for kind in trace.behind if kind in ops.ACTIVATION]
    return f"{trace.maker}/{functions[0] if functions else ''}"


def _followed(graph: OutputGraph, name: str, rank: int, tensor: str, axis: int) -> int | None:
    """The output's axis that is `axis` of a tensor in front of it."""
    current, axes = name, list(range(rank))
    while current != tensor:
        node = graph.index.nodes[graph.index.producer[current]]
        if node.op_type == "Transpose":
            perm = ops.attribute(node, "perm")
            order = list(perm) if isinstance(perm, list | tuple) else list(reversed(range(rank)))
            axes = [int(order[a]) for a in axes]
        elif node.op_type not in ("Identity", "Cast"):
            return None
        current = node.input[0]
    return axes.index(axis) if axis in axes else None


def _judged(graph: OutputGraph, name: str, kind: Kind, axis: int | None = None) -> JudgedTensor:
    sizes = graph.shapes.sizes.get(name, ())
    trace = trace_output(graph.index, graph.shapes, name, len(sizes) or 2, graph.opset)
    mask = position_mask(graph, name, axis)
    return JudgedTensor(
        name,
        kind,
        axis,
        graph.sample_axes.get(name, 0 if not sizes else None),
        None if mask is None else mask.input,
        "probabilities" if trace.maker in ("softmax", "classifier") else "logits",
        pad=None if mask is None else mask.pad,
    )


def _usual_axis(graph: OutputGraph, name: str, kind: Kind, rank: int) -> int:
    """The axis of classes where the user names only the kind: as the graph tells, or the usual one."""
    trace = trace_output(graph.index, graph.shapes, name, rank, graph.opset)
    if trace.axis is not None and trace.maker in ("softmax", "log-softmax", "linear", "classifier"):
        return trace.axis
    return 1 if kind in ("classes", "dense") else rank - 1


def _is_cache(model: Model, name: str) -> bool:
    """Whether an output hands a cache on to the next run."""
    return bool(_CACHE_WORDS.search(name)) and bool(state_inputs(model))

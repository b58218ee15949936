"""Rewrite a graph: take regions out, put adapters in their place, sweep what nothing needs any more.

The edit itself is done by onnx-graphsurgeon. What it hands back is never exported as a whole, since an export
drops metadata, documentation, denotations, quantisation annotations and inputs listed as initializers, and
garbles 4-bit and some 8-bit weights. Instead only the difference is taken from it: which nodes stay, what
they read now, and which nodes are new. All else is the original proto, field for field.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter
from onnx_graphsurgeon.logger import G_LOGGER

from redtest_onnx.errors import InputError
from redtest_onnx.graph.denotations import denote_axes
from redtest_onnx.graph.edits import finished
from redtest_onnx.graph.index import index_of, reads
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.signature import sample_axes

Item = TypeVar("Item")


@dataclass(frozen=True)
class AdapterOperator:
    """One operator of an adapter; it reads the operator before it and then its weights.

    Attributes:
        op: operator type of the default domain.
        weights: constant operands behind the first one, each any shape and dtype.
        attributes: attributes by name.
    """

    op: str
    weights: tuple[npt.NDArray[np.generic], ...] = ()
    attributes: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Removal:
    """A region to take out: readers of `exit` read `entry`, through `adapter` where there is one."""

    entry: str
    exit: str
    adapter: tuple[AdapterOperator, ...] = ()


def remove_regions(model: Model, removals: Sequence[Removal]) -> Model:
    """Take regions out of the main graph.

    Args:
        model: the model; not changed.
        removals: regions in the order of the graph; consecutive ones may share a boundary.

    Returns:
        A new model without a place on disk that refers to the same external data. Signature, metadata and
        operator sets are those of `model`; nothing unused is left. Inputs whose samples are not in front say
        so, since operators that told it may be removed. With no removals it equals `model`.

    Raises:
        InputError: an entry or exit is not in the graph, or the graph can't be edited.
    """

    def remove(graph: gs.Graph) -> None:
        _remove(model, graph, removals)
        # Idle nodes inside branches are none of our business.
        graph.cleanup(remove_unused_graph_inputs=False, recurse_subgraphs=False)

    if not removals:
        return model
    proto = _edited(model, remove)
    drop_unused(proto.graph)
    denote_axes(proto.graph.input, sample_axes(model))
    return finished(model, proto)


def rewritten(model: Model, edit: Callable[[gs.Graph], None]) -> Model:
    """The model with its main graph edited; all that the edit does not touch stays as it is.

    Args:
        model: the model; not changed.
        edit: drops, rewires and adds nodes, and changes nothing else.

    Raises:
        InputError: the graph can't be edited.
    """
    return finished(model, _edited(model, edit))


def _edited(model: Model, edit: Callable[[gs.Graph], None]) -> onnx.ModelProto:
    with G_LOGGER.suppress(G_LOGGER.ERROR):  # its warnings tell of types that it keeps as they are
        graph = _import(model)
        imported = {_first_output(node): node for node in graph.nodes}
        edit(graph)
        return _merge(model.proto, graph, imported)


def adapter_output(exit_: str, step: int) -> str:
    """Name of what an operator of the adapter in front of `exit_` gives; its node is called alike."""
    return f"{exit_}/adapter{step}"


def is_adapter(name: str) -> bool:
    """Whether a node of this name is an operator of an adapter."""
    return re.search(r"/adapter\d+$", name) is not None


def _remove(model: Model, graph: gs.Graph, removals: Sequence[Removal]) -> None:
    tensors: dict[str, gs.Tensor] = graph.tensors()
    stand_ins: dict[str, gs.Tensor] = {}
    for removal in removals:
        for name in (removal.entry, removal.exit):
            if name not in tensors:
                raise InputError(f"there is no tensor {name!r}", where=model.label, hint="see `inspect`")
        source = stand_ins.get(removal.entry, tensors[removal.entry])
        _measure_at(source, _measured_inside(model, removal), tensors)
        for step, operator in enumerate(removal.adapter):
            source = _append(graph, source, operator, adapter_output(removal.exit, step))
        stand_ins[removal.exit] = source
        _redirect(graph, tensors[removal.exit], source)


def _measured_inside(model: Model, removal: Removal) -> Iterator[str]:
    """Tensors inside a region whose sizes are asked for outside; its entry has the same, or it can't go."""
    index = index_of(model)
    inside = index.between(removal.entry, removal.exit)
    for node in inside:
        for name in index.nodes[node].output:
            if name != removal.exit and any(k not in inside for k in index.readers.get(name, ())):
                yield name


def _measure_at(source: gs.Tensor, names: Iterable[str], tensors: Mapping[str, gs.Tensor]) -> None:
    """Let the Shape operators that read the tensors read `source`."""
    for name in names:
        for node in [node for node in tensors[name].outputs if node.op == "Shape"]:
            node.inputs = [source]


def _import(model: Model) -> gs.Graph:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return gs.import_onnx(model.proto)
    except Exception as error:
        # Whatever it stumbles over, the graph is one we can't edit; nothing has been changed.
        raise InputError(
            f"the graph can't be edited: {error}",
            where=model.label,
            hint="please report the model's exporter and version",
        ) from error


def _append(graph: gs.Graph, source: gs.Tensor, operator: AdapterOperator, name: str) -> gs.Variable:
    weights = [gs.Constant(f"{name}/weight{i}", value) for i, value in enumerate(operator.weights)]
    output = gs.Variable(name, dtype=source.dtype)
    node = gs.Node(operator.op, name=name, attrs=dict(operator.attributes), inputs=[source, *weights])
    node.outputs.append(output)
    graph.nodes.append(node)
    return output


def _redirect(graph: gs.Graph, tensor: gs.Tensor, source: gs.Tensor) -> None:
    """Let all readers of `tensor` read `source`."""
    for reader in dict.fromkeys(map(_Identity, tensor.outputs)):
        reader.node.inputs = [source if read is tensor else read for read in reader.node.inputs]
    if any(output is tensor for output in graph.outputs):
        # The name of an output is part of the signature: it stays, and is fed from the new source.
        tensor.inputs.clear()
        graph.nodes.append(gs.Node("Identity", name=f"{tensor.name}/kept", inputs=[source], outputs=[tensor]))


@dataclass(frozen=True, eq=False)
class _Identity:
    """A node compared by identity; graphsurgeon compares by content, which reads all weights."""

    node: Any

    def __hash__(self) -> int:
        return id(self.node)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.node is other.node


def _merge(original: onnx.ModelProto, edited: gs.Graph, imported: Mapping[str, gs.Node]) -> onnx.ModelProto:
    """The original proto with the nodes that `edited` dropped, rewired and added."""
    proto = onnx.ModelProto()
    proto.CopyFrom(original)
    graph = proto.graph
    kept = {id(node) for node in edited.nodes}
    survivors = {key: node for key, node in imported.items() if id(node) in kept}
    known = {id(node) for node in imported.values()}
    fresh = [node for node in edited.nodes if id(node) not in known]
    constants = {t.name: t for node in fresh for t in node.inputs if isinstance(t, gs.Constant)}
    graph.initializer.extend(map(OnnxExporter.export_tensor_proto, constants.values()))
    nodes = [_rewired(node, survivors[_key(node)]) for node in graph.node if _key(node) in survivors]
    del graph.node[:]
    graph.node.extend(_ordered(graph, nodes, [OnnxExporter.export_node(node) for node in fresh]))
    return proto


def _key(node: onnx.NodeProto) -> str:
    """What identifies a node in a graph: the first tensor it makes."""
    return next(filter(None, node.output), "")


def _rewired(proto: onnx.NodeProto, edited: gs.Node) -> onnx.NodeProto:
    """The node with the inputs it has after the edit, also inside its subgraphs."""
    names = [tensor.name for tensor in edited.inputs]
    if names != list(proto.input):
        del proto.input[:]
        proto.input.extend(names)
    made = {tensor.name for tensor in edited.outputs}
    for i, name in enumerate(proto.output):
        if name and name not in made:
            # Its name has gone to the stand-in; not all operators can leave a result out.
            proto.output[i] = f"{name}/unused"
    for attribute in proto.attribute:
        if attribute.HasField("g"):
            inner = {_first_output(node): node for node in edited.attrs[attribute.name].nodes}
            for node in attribute.g.node:
                _rewired(node, inner[_key(node)])
    return proto


def _first_output(node: gs.Node) -> str:
    return next((tensor.name for tensor in node.outputs if tensor.name), "")


def _ordered(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], fresh: list[onnx.NodeProto]
) -> Iterator[onnx.NodeProto]:
    """All nodes in topological order: each new one directly behind the last tensor it needs."""
    ready = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    waiting = list(fresh)

    def now_possible() -> Iterator[onnx.NodeProto]:
        for new in list(waiting):
            if ready.issuperset(filter(None, new.input)):
                waiting.remove(new)
                ready.update(new.output)
                yield new

    yield from now_possible()
    for node in nodes:
        yield node
        ready.update(node.output)
        yield from now_possible()
    yield from waiting


def drop_unused(graph: onnx.GraphProto) -> None:
    """Drop initializers, declared shapes and annotations of tensors that are gone."""
    used = {name for node in graph.node for name in reads(node)} | {v.name for v in graph.output}
    made = {name for node in graph.node for name in node.output}
    _keep(graph.quantization_annotation, lambda note: note.tensor_name in used or note.tensor_name in made)
    used |= {
        entry.value for note in graph.quantization_annotation for entry in note.quant_parameter_tensor_names
    }
    stored = {t.name for t in graph.initializer}
    _keep(graph.initializer, lambda tensor: tensor.name in used)
    _keep(graph.sparse_initializer, lambda tensor: tensor.values.name in used)
    _keep(graph.input, lambda value: value.name not in stored or value.name in used)
    _keep(graph.value_info, lambda value: value.name in used or value.name in made)


def _keep(items: MutableSequence[Item], wanted: Callable[[Item], bool]) -> None:
    for i in reversed(range(len(items))):
        if not wanted(items[i]):
            del items[i]

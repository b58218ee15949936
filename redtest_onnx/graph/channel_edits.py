"""Keep some channels of inner widths and leave out the others, in all operands that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.arrays import Indices
from redtest_onnx.errors import InputError
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.edits import finished
from redtest_onnx.graph.index import GraphIndex, index_of, reads
from redtest_onnx.graph.inner_width import ChannelPlace, InnerWidth
from redtest_onnx.graph.inner_widths import inner_widths
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.surgery import drop_unused
from redtest_onnx.graph.weights import change_operands, store


def keep_channels(model: Model, kept: Mapping[str, Indices]) -> Model:
    """Leave out channels of inner widths; exact where what is read of them is zero.

    Args:
        model: the model; not changed.
        kept: indices of the channels that stay, in rising order, by name of the inner width.

    Raises:
        InputError: there is no such inner width, or no such channels.
    """
    known = {width.name: width for width in inner_widths(model).found}
    chosen = []
    for name, indices in kept.items():
        width = known.get(name)
        if width is None:
            raise InputError(f"{name!r} is no inner width", where=model.label, hint="make a plan anew")
        values = np.asarray(indices, np.int64)
        if not len(values) or values[0] < 0 or values[-1] >= width.channels or (np.diff(values) <= 0).any():
            raise InputError(
                f"the channels to keep of {name!r} are not some of its {width.channels}, in rising order",
                where=model.label,
            )
        if len(values) < width.channels:
            chosen.append((width, values))
    if not chosen:
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    cutter = _Cutter(model, proto)
    for width, values in chosen:
        cutter.cut(width, values)
    cutter.drop_copies()
    return finished(model, proto)


def silence_channels(model: Model, kept: Mapping[str, Indices]) -> Model:
    """The model with zeros for what is read of channels that are not kept: what `keep_channels` must equal.

    Args:
        model: the model; not changed.
        kept: as for `keep_channels`.
    """
    changes: dict[tuple[int, str], npt.NDArray[np.generic]] = {}
    for width in inner_widths(model).found:
        if width.name not in kept:
            continue
        for operand, block in width.weights:
            name = model.graph.node[operand.node].input[operand.position]
            values = changes.get((operand.node, name), model.value(model.initializers[name])).copy()
            silent = np.ones(width.channels * block, np.bool_)
            silent[_places(np.asarray(kept[width.name], np.int64), block)] = False
            np.moveaxis(values, operand.axis, 0)[silent] = 0
            changes[operand.node, name] = values
    return change_operands(model, changes)


def take_channels(
    values: npt.NDArray[Any], place: ChannelPlace, channels: int, kept: Indices
) -> npt.NDArray[Any]:
    """Some channels of a tensor that carries those of an inner width.

    Args:
        values: the tensor's values.
        place: where it holds them.
        channels: how many there are.
        kept: which are taken.
    """
    block = values.shape[place.axis] // channels
    return np.take(values, _places(kept, block), axis=place.axis)


def _places(kept: Indices, block: int) -> Indices:
    """The places of channels of which each has so many."""
    found: Indices = (kept[:, None] * block + np.arange(block)).reshape(-1)
    return found


class _Cutter:
    """Cuts operands in place; those of a node that others read, too, become its own."""

    def __init__(self, model: Model, proto: onnx.ModelProto) -> None:
        self._model, self._graph = model, proto.graph
        self._index: GraphIndex = index_of(model)
        self._stored = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._declared = [*proto.graph.value_info, *proto.graph.input]
        self._copies: set[str] = set()  # of weights, that a node read which has its own now

    def cut(self, width: InnerWidth, kept: Indices) -> None:
        """Keep some channels of one inner width."""
        for operand in width.operands:
            self._take(operand.node, operand.position, operand.axis, kept)
        for operand, block in width.weights:
            self._take(operand.node, operand.position, operand.axis, _places(kept, block))
        for i in width.depthwise:
            for attribute in self._graph.node[i].attribute:
                if attribute.name == "group":
                    attribute.i = len(kept)
        for i in width.reshapes:
            self._flatten(i)
        for value in self._declared:
            place = width.tensors.get(value.name)
            dims = value.type.tensor_type.shape.dim
            size = dims[place.axis].dim_value if place is not None and len(dims) >= -place.axis else 0
            if place is not None and size and size % width.channels == 0:
                dims[place.axis].dim_value = size // width.channels * len(kept)

    def drop_copies(self) -> None:
        """Drop the Identity nodes of weights that no node reads any more, and weights that only they read."""
        nodes = self._graph.node
        read = Counter(name for node in nodes for name in reads(node)) + Counter(self._index.outputs)
        for i in reversed(range(len(nodes))):
            if not read.keys() & nodes[i].output and self._copies.issuperset(nodes[i].output):
                read -= Counter(reads(nodes[i]))
                del nodes[i]
        if self._copies:
            drop_unused(self._graph)

    def _take(self, i: int, position: int, axis: int, places: Indices) -> None:
        old = self._stored[self._index.source(self._graph.node[i].input[position])]
        self._set(i, position, np.take(self._model.value(old), places, axis=axis))

    def _flatten(self, i: int) -> None:
        """Let a Reshape find the number of places itself."""
        name = self._index.source(self._index.nodes[i].input[1])
        if name in self._stored:
            shape = self._model.value(self._stored[name])
        else:
            constant = self._index.nodes[self._index.producer[name]]
            shape = onnx.numpy_helper.to_array(next(a.t for a in constant.attribute if a.name == "value"))
        if shape[1] != -1:
            self._set(i, 1, np.array([0 if shape[0] == -1 else shape[0], -1], np.int64))

    def _fix_sizes(self, name: str) -> None:
        """Let what reads a stored operand's sizes keep those that it has."""
        for reader in self._index.readers.get(name, ()):
            node, dims = self._graph.node[reader], list(self._stored[name].dims)
            kind = ops.qualified(node)
            if kind in ops.SIZE_ONLY:
                start, end = ops.attribute(node, "start", 0), ops.attribute(node, "end")
                assert isinstance(start, int)
                part = dims[start : end if isinstance(end, int) else None]
                sizes = np.prod(dims) if kind == "Size" else part
                value = onnx.numpy_helper.from_array(np.array(sizes, np.int64))
                node.CopyFrom(onnx.helper.make_node("Constant", [], node.output, name=node.name, value=value))

    def _set(self, i: int, position: int, values: npt.NDArray[np.generic]) -> None:
        node = self._graph.node[i]
        old = node.input[position]
        alone = self._index.value_readers(old) in ((), (i,)) and list(node.input).count(old) == 1
        if old in self._stored and alone and old not in self._index.outputs:
            self._fix_sizes(old)
            store(self._stored[old], values)
            for value in self._declared:  # exporters before IR version 4 list stored values as inputs, too
                if value.name == old:
                    kind = value.type.tensor_type.elem_type
                    value.CopyFrom(onnx.helper.make_tensor_value_info(old, kind, values.shape))
                elif self._index.handed_on.get(value.name) == old:
                    value.type.tensor_type.ClearField("shape")
            return
        own = self._graph.initializer.add()
        own.CopyFrom(
            onnx.numpy_helper.from_array(np.ascontiguousarray(values), f"{old}/{node.output[0]}/{position}")
        )
        self._stored[own.name] = own
        node.input[position] = own.name
        if self._index.source(old) != old:
            self._copies.add(old)

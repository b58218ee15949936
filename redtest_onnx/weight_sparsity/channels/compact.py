"""Take channels out of a graph that compute nothing: exact, smaller and, unlike single zeros, faster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.arrays import Flags, Numbers
from redtest_onnx.errors import InternalError
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.linear_operators import LinearOperator, linear_operators
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.weights import store
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.weight_sparsity.channels.follow import ChannelTensor, Consumer, Link, follow
from redtest_onnx.weight_sparsity.scope import Scope

_SAMPLES = 16
# Sums in another order differ by some roundings; relative to the largest output.
_ROUNDINGS = 1e4
# Functions that saturate (Sigmoid, Softmax, Erf) are computed to some roundings of 1, however small they are.
_ROUNDINGS_OF_ONE = 16


@dataclass(frozen=True)
class Cut:
    """Channels that were taken out.

    Attributes:
        operator: name of the node that made them.
        removed: how many are gone.
        channels: how many there were.
        folded: those of the removed that were constant but not zero, now in the bias of what read them.
    """

    operator: str
    removed: int
    channels: int
    folded: int


@dataclass(frozen=True)
class CompactionResult:
    """A model without the channels that computed nothing.

    Attributes:
        model: the smaller model; the given one if nothing could go.
        cuts: what was taken out.
    """

    model: Model
    cuts: tuple[Cut, ...]


def compact(bench: Workbench) -> CompactionResult:
    """Remove output channels that are constant, and those that no node reads, where that is exact.

    A channel goes if all weights that make it are zero or all that read it are, and every operator from
    where it is made to where it is read works on each channel by itself. A constant that is not zero is
    folded into the bias of its readers; where zero padding lies around it, or no reader has a bias, the
    channel stays. So do channels that a sum with a shortcut needs.

    Args:
        bench: the model, which is not changed, and samples that both models are run on.

    Raises:
        InternalError: the outputs differ by more than rounding.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(bench.model.proto)
    cuts: list[Cut] = []
    while found := list(_pass(bench.model.edited(proto))):
        cuts.extend(found)
    if not cuts:
        return CompactionResult(bench.model, ())
    _drop_orphans(proto.graph)
    smaller = bench.model.edited(proto)
    check_same(bench, smaller)
    return CompactionResult(smaller, tuple(cuts))


def _pass(model: Model) -> Iterator[Cut]:
    """Cut every link that has something to lose, in place; what is gone may set others free."""
    cutter = _Cutter(model)
    for producer in sorted(cutter.index.weighted):
        link = follow(cutter.model, cutter.scope, producer)
        if link is None:
            continue
        goes = _goes(cutter.model, link, cutter.operators)
        if goes.any():
            yield cutter.cut(link, goes)
            cutter = _Cutter(model.edited(model.proto))  # what was found out about the old graph is stale


def _goes(model: Model, link: Link, operators: dict[int, LinearOperator]) -> Flags:
    """[channels] which can go; one always stays."""
    constant = np.ones(link.channels, np.bool_)
    unread = np.ones(link.channels, np.bool_)
    for consumer in link.consumers:
        carried = consumer.carried
        foldable = not consumer.padded and _bias(model, consumer, operators)
        constant &= ~carried.varies & ((carried.constant == 0) | foldable)
        weight = _weight(model, consumer)
        if weight.shape[consumer.weight.axis] != link.channels * carried.block:
            return np.zeros(link.channels, np.bool_)  # the model doesn't run; that is for its run to say
        unread &= ~_by_channel(weight, consumer, link).any(axis=(1, 2))
    goes: Flags = constant | unread
    if goes.all():
        goes[0] = False
    return goes


def _weight(model: Model, consumer: Consumer) -> Numbers:
    return model.value(model.initializers[model.graph.node[consumer.weight.node].input[1]])


def _by_channel(weight: Numbers, consumer: Consumer, link: Link) -> Numbers:
    """[channels, outputs, places] the weights that read each channel."""
    turned = np.moveaxis(weight, consumer.weight.axis, 0)
    outputs = turned.shape[1]
    places = turned.reshape(link.channels, consumer.carried.block, outputs, -1)
    return places.swapaxes(1, 2).reshape(link.channels, outputs, -1)


def _bias(model: Model, consumer: Consumer, operators: dict[int, LinearOperator]) -> bool:
    """Whether a consumer has a bias, or can get one."""
    operator = operators.get(consumer.weight.node)
    if operator is None:
        return False
    return operator.kind != "MatMul" if operator.bias is None else bool(np.all(operator.bias_scale != 0))


class _Cutter:
    """Cuts links of one graph in place."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.graph = model.proto.graph
        self.scope = Scope(model)
        self.index = self.scope.index
        self.operators = {operator.node: operator for operator in linear_operators(model)}

    def cut(self, link: Link, goes: Flags) -> Cut:
        """Take the channels out of everything on the link."""
        stays = np.flatnonzero(~goes)
        folded = np.zeros(link.channels, np.bool_)
        for consumer in link.consumers:
            folded |= self._fold(link, consumer, goes)
            axis, block = consumer.weight.axis, consumer.carried.block
            places = (stays[:, None] * block + np.arange(block)).ravel()
            self._take(consumer.weight.node, 1, axis, places)
        for operand in link.operands:
            self._take(operand.node, operand.position, operand.axis, stays)
        for i in link.depthwise:
            _set_group(self.graph.node[i], len(stays))
        for i in link.reshapes:
            self._flatten(i)
        for name, carried in link.tensors.items():
            self._declare(name, carried, link.channels, len(stays))
        node = self.graph.node[link.producer]
        return Cut(
            node.name or node.output[0], int(goes.sum()), link.channels, int(np.count_nonzero(folded & goes))
        )

    def _fold(self, link: Link, consumer: Consumer, goes: Flags) -> Flags:
        """Add what constant channels contribute to the consumer's bias; returns which do."""
        carried = consumer.carried
        used = _by_channel(_weight(self.model, consumer), consumer, link)
        folded: Flags = goes & ~carried.varies & (carried.constant != 0) & used.any(axis=(1, 2))
        if not folded.any():
            return folded
        constants = carried.constant[folded].astype(np.float64)
        added = np.einsum("c,cop->o", constants, used[folded].astype(np.float64))
        operator = self.operators[consumer.weight.node]
        if operator.bias is None:
            node = self.graph.node[operator.node]
            self._set(operator.node, 2, added.astype(carried.constant.dtype), node.output[0] + "/bias")
            return folded
        i, position = operator.bias
        old = self._value(self.graph.node[i].input[position])
        correction = added * operator.scale / operator.bias_scale
        new = (old.astype(np.float64) + correction.reshape(_shape(old, correction))).astype(old.dtype)
        self._set(i, position, new)
        return folded

    def _take(self, i: int, position: int, axis: int, places: npt.NDArray[np.int64]) -> None:
        old = self._value(self.graph.node[i].input[position])
        self._set(i, position, np.take(old, places, axis=axis))

    def _value(self, name: str) -> Numbers:
        tensor = self.model.graph.initializer
        stored = next((t for t in tensor if t.name == name), None) or self.scope.stored(name)
        assert stored is not None
        return self.model.value(stored)

    def _set(self, i: int, position: int, values: Numbers, name: str | None = None) -> None:
        """Give an input of a node other values, without touching those of other nodes."""
        node = self.graph.node[i]
        old = node.input[position] if position < len(node.input) else ""
        stored = next((t for t in self.graph.initializer if t.name == old), None)
        if stored is not None and self.index.readers.get(old, (i,)) == (i,) and old not in self.index.outputs:
            store(stored, values)
            self._redeclare(old, values.shape)
            return
        fresh = onnx.numpy_helper.from_array(np.ascontiguousarray(values), name or f"{old}/{node.output[0]}")
        self.graph.initializer.append(fresh)
        while len(node.input) <= position:
            node.input.append("")
        node.input[position] = fresh.name

    def _redeclare(self, name: str, shape: tuple[int, ...]) -> None:
        """Some exporters declare initializers, too, before IR version 4 all of them among the inputs."""
        for value in (*self.graph.input, *self.graph.value_info):
            if value.name == name:
                value.CopyFrom(
                    onnx.helper.make_tensor_value_info(name, value.type.tensor_type.elem_type, shape)
                )

    def _flatten(self, i: int) -> None:
        """Let a Reshape find the number of places itself."""
        node = self.graph.node[i]
        shape = self._value(node.input[1]).copy()
        if shape[1] != -1:
            batch = 0 if shape[0] == -1 else shape[0]
            self._set(i, 1, np.array([batch, -1], np.int64))

    def _declare(self, name: str, carried: ChannelTensor, before: int, after: int) -> None:
        """Correct the size that the file declares for a tensor."""
        for value in self.graph.value_info:
            dims = value.type.tensor_type.shape.dim
            if value.name == name and len(dims) >= -carried.axis:
                size = dims[carried.axis].dim_value
                if size and size % before == 0:
                    dims[carried.axis].dim_value = size // before * after


def _shape(old: Numbers, new: Numbers) -> tuple[int, ...]:
    return old.shape if old.size == new.size else (-1,)


def _set_group(node: onnx.NodeProto, group: int) -> None:
    for attribute in node.attribute:
        if attribute.name == "group":
            attribute.i = group


def _drop_orphans(graph: onnx.GraphProto) -> None:
    """Remove stored values that no node reads any more, and the Identity nodes that handed them on."""
    while True:
        index = GraphIndex(graph)
        used = index.readers.keys() | set(index.outputs)
        nodes = [n for n in graph.node if n.op_type == "Identity" and n.output[0] not in used]
        stale = [t for t in graph.initializer if t.name not in used]
        for node in nodes:
            graph.node.remove(node)
        for tensor in stale:
            graph.initializer.remove(tensor)
        # One that is listed as an input, too, would have to be fed from now on.
        gone = {tensor.name for tensor in stale}
        for value in [v for v in graph.input if v.name in gone]:
            graph.input.remove(value)
        if not nodes and not stale:
            return


def check_same(bench: Workbench, smaller: Model) -> None:
    """Hold the outputs of a model without its unused channels against those of the whole one.

    Values that the whole model overflows at are left out: zero times infinity is no number, and the smaller
    model has one product less.

    Args:
        bench: the whole model, and samples that both are run on.
        smaller: the other one.

    Raises:
        InternalError: the outputs differ by more than rounding.
    """
    feeds = bench.leading(bench.fixed_batch or min(_SAMPLES, len(bench.data)))
    expected, found = bench.session().run(feeds), Session(smaller, bench.options).run(feeds)
    for name, reference in expected.items():
        if not np.issubdtype(np.asarray(reference).dtype, np.floating):
            continue
        finite = np.isfinite(reference)
        whole = reference[finite].astype(np.float64)
        if not whole.size:
            continue
        largest = float(np.abs(whole).max())
        limit = float(np.finfo(reference.dtype).eps) * (_ROUNDINGS * largest + _ROUNDINGS_OF_ONE)
        difference = float(np.abs(found[name][finite].astype(np.float64) - whole).max())
        if not difference <= limit:
            raise InternalError(f"without unused channels {name} differs by {difference:.3g}")

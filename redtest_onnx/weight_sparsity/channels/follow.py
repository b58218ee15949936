"""Where the output channels of one linear operator go until other linear operators read them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from redtest_onnx.arrays import Flags, Numbers
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.model import Model
from redtest_onnx.weight_sparsity.scope import Scope

# One operand, one result, each number by itself; their other inputs are single numbers.
_POINTWISE = ops.ACTIVATION | ops.CARRIERS | {"Dropout", "Neg", "Abs", "Sqrt", "Exp"}
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})
_WINDOWS = frozenset({"MaxPool", "AveragePool", "LpPool"})
_WHOLE = frozenset({"GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"})


@dataclass(frozen=True)
class ChannelTensor:
    """A tensor that holds the channels.

    Attributes:
        axis: of the channels, counted from the end (-1 for products, -3 for images).
        block: consecutive places that belong to one channel, after an image was flattened.
        varies: [channels] whether a channel depends on the model's inputs.
        constant: [channels] what the others hold everywhere.
    """

    axis: int
    block: int
    varies: Flags
    constant: Numbers


@dataclass(frozen=True)
class Operand:
    """A stored operand with a value per channel: which input of which node, and its axis of the channels."""

    node: int
    position: int
    axis: int


@dataclass(frozen=True)
class Consumer:
    """A linear operator that reads the channels.

    Attributes:
        weight: its weights.
        carried: what it reads.
        padded: whether it also reads zeros around an image, so that a constant channel does not stay one.
    """

    weight: Operand
    carried: ChannelTensor
    padded: bool


@dataclass
class Link:
    """The way of the channels of one producer.

    Attributes:
        producer: index of the node.
        channels: how many there are.
        operands: stored values per channel, to be cut with them.
        depthwise: convolutions with a group per channel.
        reshapes: Reshapes that flatten them.
        consumers: where they end.
        tensors: what carries them.
    """

    producer: int
    channels: int
    operands: list[Operand] = field(default_factory=list)
    depthwise: list[int] = field(default_factory=list)
    reshapes: list[int] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)
    tensors: dict[str, ChannelTensor] = field(default_factory=dict)


class _BrokenError(Exception):
    """The channels go where they can't be followed."""


def follow(model: Model, scope: Scope, producer: int) -> Link | None:
    """The link of a producer in the main graph; None if its channels can't be followed to the end.

    Producers are convolutions of one group, Gemm and MatMul with stored float weights.
    """
    try:
        link = _Follower(model, scope, producer).follow()
    except _BrokenError:
        return None
    return link if link.consumers else None


class _Follower:
    def __init__(self, model: Model, scope: Scope, producer: int) -> None:
        self.model = model
        self.scope = scope
        self.index = scope.index
        self.nodes = scope.index.nodes
        self.link = self._start(producer)

    def follow(self) -> Link:
        """Walk the nodes behind the producer in graph order."""
        link = self.link
        for i in range(link.producer + 1, len(self.nodes)):
            if not link.tensors.keys().isdisjoint(self.index.reads[i]):
                self._visit(i)
        if any(name in self.index.outputs for name in link.tensors):
            raise _BrokenError
        return link

    def _start(self, i: int) -> Link:
        node = self.nodes[i]
        kind = ops.qualified(node)
        weight = self._weight(node)
        if kind not in ("Conv", "Gemm", "MatMul") or not _is_plain(node):
            raise _BrokenError
        axis = 0 if kind == "Conv" or ops.attribute(node, "transB", 0) else 1
        if kind != "Conv" and weight.ndim != 2:
            raise _BrokenError
        channels = weight.shape[axis]
        link = Link(i, channels, [Operand(i, 1, axis)])
        varies = np.moveaxis(weight != 0, axis, 0).reshape(channels, -1).any(axis=1)
        constant = np.zeros(channels, weight.dtype)
        if len(node.input) > 2 and node.input[2]:
            link.operands.append(self._operand(i, 2, node.input[2], -1, channels))
            constant = self._value(node.input[2]).reshape(channels)
        behind = 1 - weight.ndim if kind == "Conv" else -1
        link.tensors[node.output[0]] = ChannelTensor(behind, 1, varies, constant)
        return link

    def _visit(self, i: int) -> None:
        node = self.nodes[i]
        kind = ops.qualified(node)
        carried = [self.link.tensors[name] for name in node.input if name in self.link.tensors]
        if not carried or list(self.index.reads[i]) != list(dict.fromkeys(filter(None, node.input))):
            raise _BrokenError  # read inside a branch
        first = carried[0]
        if kind in ("Conv", "Gemm", "MatMul"):
            self._visit_linear(i, node, kind, first)
        elif kind in _WINDOWS | _WHOLE and first.block == 1 and first.axis < -1:
            self._visit_pool(node, kind, first)
        elif kind in ("Flatten", "Reshape"):
            self._visit_flatten(i, node, kind, first)
        elif kind in _POINTWISE | _ARITHMETIC | {"BatchNormalization", "Clip"}:
            self._visit_channelwise(i, node, kind)
        else:
            raise _BrokenError

    def _visit_linear(self, i: int, node: onnx.NodeProto, kind: str, carried: ChannelTensor) -> None:
        """A consumer, or a depthwise convolution."""
        weight = self._weight(node)
        if self.link.tensors.keys() & set(node.input[1:]):
            raise _BrokenError
        if kind == "Conv" and _group(node) == self.link.channels == len(weight) and _group(node) > 1:
            self._visit_depthwise(i, node, weight, carried)
            return
        if kind == "Conv":
            fits = carried.axis == 1 - weight.ndim and carried.block == 1
            operand = Operand(i, 1, 1)
        else:
            transposed = bool(ops.attribute(node, "transB", 0))
            fits = carried.axis == -1 and weight.ndim == 2
            operand = Operand(i, 1, 1 if transposed else 0)
        if not (fits and _is_plain(node)):
            raise _BrokenError
        block = weight.shape[operand.axis] // self.link.channels
        self.link.consumers.append(Consumer(operand, replace(carried, block=block), _is_padded(node)))

    def _visit_depthwise(self, i: int, node: onnx.NodeProto, weight: Numbers, carried: ChannelTensor) -> None:
        channels = self.link.channels
        self.link.operands.append(self._operand(i, 1, node.input[1], 0, channels))
        bias = np.zeros(channels, weight.dtype)
        if len(node.input) > 2 and node.input[2]:
            self.link.operands.append(self._operand(i, 2, node.input[2], -1, channels))
            bias = self._value(node.input[2]).reshape(channels)
        self.link.depthwise.append(i)
        flat = weight.reshape(channels, -1)
        at_border = (carried.constant != 0) & _is_padded(node)
        varies = flat.any(axis=1) & (carried.varies | at_border)
        constant = bias + np.where(flat.any(axis=1), carried.constant * flat.sum(axis=1), 0)
        self.link.tensors[node.output[0]] = replace(carried, varies=varies, constant=constant)

    def _visit_pool(self, node: onnx.NodeProto, kind: str, carried: ChannelTensor) -> None:
        if len([name for name in node.output if name]) != 1 or kind == "LpPool":
            raise _BrokenError
        axis = carried.axis
        if kind.startswith("Reduce"):
            axes = self.scope.numbers(node, "axes")
            places = set(range(axis + 1, 0))
            rank = 1 - axis
            if axes is None or {(a - rank if a >= 0 else a) for a in axes} != places:
                raise _BrokenError
            if not ops.attribute(node, "keepdims", 1):
                axis = -1
        averaged = kind == "AveragePool" and ops.attribute(node, "count_include_pad", 0)
        at_border = (carried.constant != 0) & bool(averaged and _is_padded(node))
        self.link.tensors[node.output[0]] = replace(carried, axis=axis, varies=carried.varies | at_border)

    def _visit_flatten(self, i: int, node: onnx.NodeProto, kind: str, carried: ChannelTensor) -> None:
        """An image [n, channels, ...] becomes [n, channels * ...]: each channel a block of places."""
        if carried.axis == -1 or carried.block != 1:
            raise _BrokenError  # its channels would not lie in blocks
        if kind == "Flatten" and ops.attribute(node, "axis", 1) != 1:
            raise _BrokenError
        if kind == "Reshape":
            shape = self.scope.numbers(node, "shape")
            if shape is None or len(shape) != 2 or ops.attribute(node, "allowzero", 0):
                raise _BrokenError
            if shape[0] not in (-1, 0, 1) or shape[1] == 0:
                raise _BrokenError  # rows would not be samples
            if shape[1] != -1 and shape[1] % self.link.channels:
                raise _BrokenError
            self.link.reshapes.append(i)
        self.link.tensors[node.output[0]] = replace(carried, axis=-1, block=0)

    def _visit_channelwise(self, i: int, node: onnx.NodeProto, kind: str) -> None:
        """Each channel by itself; what constant channels become is computed by ONNX's own reference."""
        inputs = [self.link.tensors.get(name) for name in node.input]
        carried = next(item for item in inputs if item is not None)
        if any(
            item is not None and (item.axis, item.block) != (carried.axis, carried.block) for item in inputs
        ):
            raise _BrokenError
        if carried.block != 1 and kind not in _POINTWISE:
            raise _BrokenError
        if kind == "BatchNormalization" and (carried.axis == -1 or len(node.output) != 1):
            raise _BrokenError
        for k, name in enumerate(node.input):
            if name and inputs[k] is None:
                axis = -1 if kind == "BatchNormalization" else carried.axis
                if self._value(name).size > 1:
                    self.link.operands.append(self._operand(i, k, name, axis, self.link.channels))
        varies: Flags = np.any([item.varies for item in inputs if item is not None], axis=0)
        constant = self._computed(node, carried, varies)
        broken = ~np.isfinite(constant)
        made = replace(carried, varies=varies | broken, constant=np.where(broken, 0, constant))
        self.link.tensors[node.output[0]] = made

    def _computed(self, node: onnx.NodeProto, carried: ChannelTensor, varies: Flags) -> Numbers:
        """[channels] what a node makes of the constants."""
        graph = onnx.helper.make_graph(
            [node],
            "step",
            [
                onnx.helper.make_empty_tensor_value_info(name)
                for name in dict.fromkeys(filter(None, node.input))
            ],
            [onnx.helper.make_empty_tensor_value_info(node.output[0])],
        )
        step = onnx.helper.make_model(graph, opset_imports=self.model.proto.opset_import)
        feeds = {}
        for name in filter(None, node.input):
            item = self.link.tensors.get(name)
            if item is None:
                feeds[name] = self._value(name)
                continue
            shape = [1] * (1 - carried.axis) if carried.axis != -1 else [1, 1]
            shape[carried.axis] = self.link.channels
            feeds[name] = np.where(varies, 0, item.constant).astype(item.constant.dtype).reshape(shape)
        try:
            with np.errstate(all="ignore"):
                (made,) = ReferenceEvaluator(step).run([node.output[0]], feeds)
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            raise _BrokenError from error
        return np.asarray(made).reshape(self.link.channels)

    def _weight(self, node: onnx.NodeProto) -> Numbers:
        """The stored float weights of a linear operator, its second input."""
        tensor = self.index.initializers.get(node.input[1]) if len(node.input) > 1 else None
        if tensor is None or tensor.data_type not in _FLOATS:
            raise _BrokenError
        return self.model.value(tensor)

    def _value(self, name: str) -> Numbers:
        tensor = self.scope.stored(name)
        if tensor is None or name in self.scope.input_dependent:
            raise _BrokenError
        return self.model.value(tensor)

    def _operand(self, node: int, position: int, name: str, axis: int, channels: int) -> Operand:
        """A stored operand that has the channels on one axis and nothing on the others but for weights."""
        value = self._value(name)
        if value.ndim < -axis or value.shape[axis] != channels or (axis < 0 and value.size != channels):
            raise _BrokenError
        return Operand(node, position, axis % value.ndim)


_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def _is_plain(node: onnx.NodeProto) -> bool:
    """Whether nothing but the usual factors and groups are in play."""
    if node.op_type == "Gemm":
        return all(ops.attribute(node, k, d) == d for k, d in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)))
    return node.op_type != "Conv" or _group(node) == 1


def _group(node: onnx.NodeProto) -> int:
    return int(str(ops.attribute(node, "group", 1)))


def _is_padded(node: onnx.NodeProto) -> bool:
    mode = ops.attribute(node, "auto_pad", b"NOTSET")
    pads = ops.attribute(node, "pads", [])
    assert isinstance(pads, list)
    return mode in (b"SAME_UPPER", b"SAME_LOWER") or any(pads)

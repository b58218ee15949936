"""Find the inner widths of a graph, and say why the channels of other operators are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex, index_of
from redtest_onnx.graph.inner_width import ChannelOperand, ChannelPlace, InnerWidth
from redtest_onnx.graph.linear_operators import LinearOperator, linear_operators
from redtest_onnx.graph.model import Model

# What may join channels of several operators: a gate and what it lets by.
_PRODUCTS = frozenset({"Mul", "Div"})
_CHANNELWISE = (
    ops.ACTIVATION
    | ops.CARRIERS
    | _PRODUCTS
    | frozenset(
        {"Add", "Sub", "Pow", "Neg", "Abs", "Sqrt", "Reciprocal", "Exp", "Log", "Min", "Max", "Dropout"}
    )
)
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
_PLACE_KEPT = _POOLS | {"BatchNormalization"}
_MEANS = frozenset({"ReduceMean", "ReduceMax"})
_STATISTICS = range(1, 5)  # inputs of BatchNormalization with one value per channel


@dataclass(frozen=True)
class InnerWidths:
    """All inner widths of a graph.

    Attributes:
        found: in graph order.
        refused: why the channels of other linear operators can't be left out, by the operator's name.
    """

    found: tuple[InnerWidth, ...]
    refused: Mapping[str, str]


def inner_widths(model: Model) -> InnerWidths:
    """The inner widths of a model's main graph, found once per model."""
    known = model.facts.get("inner widths")
    if not isinstance(known, InnerWidths):
        known = model.facts["inner widths"] = _find(model)
    return known


def _find(model: Model) -> InnerWidths:
    index = index_of(model)
    operators = {operator.node: operator for operator in linear_operators(model)}
    graph = _Graph(model, index, operators, _origins(index))
    found: list[InnerWidth] = []
    refused: dict[str, str] = {}
    covered: set[int] = set()
    for i in sorted(index.weighted):
        if i in covered:
            continue
        name = index.nodes[i].name or index.nodes[i].output[0]
        operator = operators.get(i)
        if operator is None:
            refused[name] = "its weights are quantised, computed or of a kind that can't be solved for"
            continue
        try:
            width = _Walk(graph, operator).width()
        except _RefusedError as error:
            refused[name] = str(error)
            continue
        found.append(width)
        covered.update(producer.node for producer in width.producers)
        covered.update(width.depthwise)
    return InnerWidths(tuple(found), refused)


def _origins(index: GraphIndex) -> dict[str, frozenset[int]]:
    """The nodes whose channels each activation holds, through operators on each channel by itself."""
    found: dict[str, frozenset[int]] = {}
    for i, node in enumerate(index.nodes):
        own = frozenset((i,))
        if ops.qualified(node) in _CHANNELWISE | {"BatchNormalization"}:
            parts = [found.get(name, frozenset()) for name in index.activation_inputs(i)]
            own = frozenset().union(*parts) or own
        found.update((name, own) for name in node.output if name)
    return found


@dataclass(frozen=True)
class _Graph:
    """A graph with what is known of it."""

    model: Model
    index: GraphIndex
    operators: Mapping[int, LinearOperator]
    origins: Mapping[str, frozenset[int]]


class _RefusedError(Exception):
    """The channels can't be left out, for a reason in words."""


@dataclass
class _Found:
    """What was found of a width so far."""

    tensors: dict[str, ChannelPlace] = field(default_factory=dict)
    producers: dict[int, LinearOperator] = field(default_factory=dict)
    consumers: dict[int, tuple[LinearOperator, ChannelOperand, int]] = field(default_factory=dict)
    operands: dict[tuple[int, int], ChannelOperand] = field(default_factory=dict)
    depthwise: set[int] = field(default_factory=set)
    reshapes: set[int] = field(default_factory=set)


class _Walk:
    """Follows the channels of one operator to all that make and all that read them."""

    def __init__(self, graph: _Graph, start: LinearOperator) -> None:
        self._graph, self._index, self._start = graph, graph.index, start
        self._channels = len(start.scale)
        self._found = _Found()
        self._pending: list[str] = []

    def width(self) -> InnerWidth:
        """The inner width.

        Raises:
            _RefusedError: something stands in the way.
        """
        start, found = self._start, self._found
        if self._channels < 2:
            raise _RefusedError("there is only one channel")
        if start.groups != 1:
            raise _RefusedError("it is a grouped convolution")
        self._produce(start)
        while self._pending:
            name = self._pending.pop()
            self._look_back(name)
            for reader in self._index.readers.get(name, ()):
                self._read(reader, name)
        if not found.consumers:
            raise _RefusedError("no linear operator reads them")
        producers = tuple(found.producers[i] for i in sorted(found.producers))
        consumers = [found.consumers[i] for i in sorted(found.consumers)]
        node = self._index.nodes[producers[0].node]
        return InnerWidth(
            name=node.name or node.output[0],
            channels=self._channels,
            producers=producers,
            consumers=tuple(operator for operator, _, _ in consumers),
            operands=tuple(found.operands[key] for key in sorted(found.operands)),
            weights=tuple((operand, block) for _, operand, block in consumers),
            depthwise=tuple(sorted(found.depthwise)),
            reshapes=tuple(sorted(found.reshapes)),
            tensors=dict(found.tensors),
        )

    def _describe(self, i: int) -> str:
        node = self._index.nodes[i]
        return f"{node.op_type} {node.name or node.output[0]!r}"

    def _carry(self, name: str, place: ChannelPlace) -> None:
        """Note that a tensor holds the channels."""
        known = self._found.tensors.get(name)
        if known is not None:
            if (known.axis, known.block) != (place.axis, place.block):
                raise _RefusedError(f"{name!r} would hold them on two axes")
            return
        if name in self._index.outputs:
            raise _RefusedError(f"{name!r} is an output of the model")
        self._found.tensors[name] = place
        self._pending.append(name)

    def _produce(self, operator: LinearOperator) -> None:
        node = self._index.nodes[operator.node]
        if operator.groups != 1:
            raise _RefusedError(f"{self._describe(operator.node)} is a grouped convolution")
        if len(operator.scale) != self._channels:
            raise _RefusedError(f"{self._describe(operator.node)} has another number of channels")
        weight = self._own_weight(operator)
        rows = operator.kind == "Conv" or operator.transposed
        self._found.producers[operator.node] = operator
        self._operand(*operator.weight, 0 if rows else 1)
        rank = {"Conv": len(weight.dims), "Gemm": 2}.get(operator.kind)
        place = ChannelPlace(1 - len(weight.dims) if operator.kind == "Conv" else -1, rank)
        if len(node.input) > 2 and node.input[2]:
            self._constant(operator.node, 2, ChannelPlace(-1, None))
        self._carry(node.output[0], place)

    def _own_weight(self, operator: LinearOperator) -> onnx.TensorProto:
        """The weights of an operator, which nothing else may read."""
        weight = operator.weight_of(self._graph.model)
        node = operator.weight[0]
        shared = self._index.value_readers(weight.name) != (node,) or weight.name in self._index.outputs
        if shared or list(self._index.nodes[node].input).count(weight.name) > 1:
            raise _RefusedError(f"other nodes read the weights of {self._describe(operator.node)}, too")
        return weight

    def _look_back(self, name: str) -> None:
        """Take in what makes a tensor that holds the channels."""
        i = self._index.producer.get(name)
        if i is None:
            raise _RefusedError(f"{name!r} is an input of the model")
        operator = self._graph.operators.get(i)
        if operator is not None and not self._is_depthwise(operator):
            if i not in self._found.producers:
                self._produce(operator)
        elif operator is not None or ops.qualified(self._index.nodes[i]) in _CHANNELWISE | _PLACE_KEPT:
            place = self._found.tensors[name]
            for other in self._index.activation_inputs(i):
                self._carry(other, place)
        elif self._found.tensors.keys().isdisjoint(self._index.nodes[i].input[:1]):
            raise _RefusedError(f"{self._describe(i)} does not work on each channel by itself")

    def _is_depthwise(self, operator: LinearOperator) -> bool:
        dims = operator.weight_of(self._graph.model).dims
        return operator.kind == "Conv" and operator.groups == self._channels == dims[0] and dims[1] == 1

    def _read(self, i: int, name: str) -> None:
        """Follow the channels through a node that reads them, or end there."""
        node, place = self._index.nodes[i], self._found.tensors[name]
        kind, operator = ops.qualified(node), self._graph.operators.get(i)
        if name not in node.input:
            raise _RefusedError(f"a branch of {self._describe(i)} reads them")
        if (
            operator is not None
            and self._is_depthwise(operator)
            and place.axis == 1 - len(operator.weight_of(self._graph.model).dims)
        ):
            self._own_weight(operator)
            self._operand(*operator.weight, 0)
            if len(node.input) > 2 and node.input[2]:
                self._constant(i, 2, ChannelPlace(-1, None))
            self._found.depthwise.add(i)
            self._carry(node.output[0], place)
        elif operator is not None:
            self._consume(operator, place)
        elif kind == "BatchNormalization":
            if place.rank is None or place.axis != 1 - place.rank or place.block != 1 or len(node.output) > 1:
                raise _RefusedError(f"{self._describe(i)} works on another axis")
            for position in _STATISTICS:
                self._constant(i, position, ChannelPlace(-1, None))
            self._carry(node.output[0], place)
        elif kind in _CHANNELWISE:
            self._read_channelwise(i, node, kind, place)
        elif kind in _POOLS | _MEANS and place.rank is not None and place.axis == 1 - place.rank < -1:
            self._pool(i, node, kind, place)
        elif kind in ("Flatten", "Reshape") and place.rank is not None and place.axis == 1 - place.rank:
            self._flatten(i, node, kind)
        elif kind == "Transpose":
            self._transpose(i, node, place)
        else:
            raise _RefusedError(f"{self._describe(i)} does not work on each channel by itself")

    def _consume(self, operator: LinearOperator, place: ChannelPlace) -> None:
        i, weight = operator.node, self._own_weight(operator)
        if operator.groups != 1:
            raise _RefusedError(f"{self._describe(i)} is a grouped convolution")
        conv = operator.kind == "Conv"
        if place.axis != (1 - len(weight.dims) if conv else -1) or (conv and place.block != 1):
            raise _RefusedError(f"{self._describe(i)} reads them on another axis")
        axis = 1 if conv or operator.transposed else 0
        size = weight.dims[axis]
        if size % self._channels or (place.block == 1 and size != self._channels):
            raise _RefusedError(f"{self._describe(i)} reads {size} channels")
        self._found.consumers[i] = operator, ChannelOperand(*operator.weight, axis), size // self._channels

    def _read_channelwise(self, i: int, node: onnx.NodeProto, kind: str, place: ChannelPlace) -> None:
        joined = self._index.activation_inputs(i)
        if len({self._graph.origins.get(name) for name in joined}) > 1 and kind not in _PRODUCTS:
            raise _RefusedError(f"{self._describe(i)} puts them together with those of other operators")
        if any(name in self._index.outputs or name in self._index.readers for name in node.output[1:]):
            raise _RefusedError(f"{self._describe(i)} has several results")
        for position, name in enumerate(node.input):
            if name and name not in joined:
                self._constant(i, position, place)
        for name in joined:
            self._carry(name, place)
        self._carry(node.output[0], place)

    def _pool(self, i: int, node: onnx.NodeProto, kind: str, place: ChannelPlace) -> None:
        if sum(bool(name) for name in node.output) > 1:
            raise _RefusedError(f"{self._describe(i)} has several results")
        found = place
        if kind in _MEANS:
            axes = self._numbers(node, "axes")
            if place.rank is None or axes is None:
                raise _RefusedError(f"{self._describe(i)} takes axes that aren't stored")
            gone = {axis - place.rank if axis >= 0 else axis for axis in axes}
            if gone != set(range(place.axis + 1, 0)):
                raise _RefusedError(f"{self._describe(i)} works on other axes than those behind the channels")
            if not ops.attribute(node, "keepdims", 1):
                found = ChannelPlace(-1, place.rank - len(gone))
        self._carry(node.output[0], found)

    def _flatten(self, i: int, node: onnx.NodeProto, kind: str) -> None:
        """An image [n, channels, ...] becomes [n, channels * ...]: each channel a block of places."""
        if kind == "Flatten" and ops.attribute(node, "axis", 1) != 1:
            raise _RefusedError(f"{self._describe(i)} mixes them with another axis")
        if kind == "Reshape":
            shape = self._numbers(node, "shape")
            whole = shape is not None and len(shape) == 2 and shape[1] != 0 and shape[0] in (-1, 0, 1)
            if not whole or ops.attribute(node, "allowzero", 0):
                raise _RefusedError(f"{self._describe(i)} mixes them with another axis")
            self._found.reshapes.add(i)
        self._carry(node.output[0], ChannelPlace(-1, 2, None))

    def _transpose(self, i: int, node: onnx.NodeProto, place: ChannelPlace) -> None:
        order = ops.attribute(node, "perm", None)
        if not isinstance(order, list) or place.rank not in (None, len(order)):
            raise _RefusedError(f"{self._describe(i)} turns axes that aren't known")
        axis = order.index(len(order) + place.axis) - len(order)
        self._carry(node.output[0], ChannelPlace(axis, len(order), place.block))

    def _numbers(self, node: onnx.NodeProto, name: str) -> list[int] | None:
        """The stored integers of a node's attribute or second input."""
        value = ops.attribute(node, name)
        if isinstance(value, list):
            return [int(number) for number in value]
        tensor = self._stored(node.input[1]) if len(node.input) > 1 else None
        return None if tensor is None else [int(n) for n in self._graph.model.value(tensor).reshape(-1)]

    def _stored(self, name: str) -> onnx.TensorProto | None:
        name = self._index.source(name)
        if name in self._index.initializers:
            return self._index.initializers[name]
        maker = self._index.producer.get(name)
        value = None if maker is None else ops.attribute(self._index.nodes[maker], "value")
        constant = maker is not None and self._index.nodes[maker].op_type == "Constant"
        return value if constant and isinstance(value, onnx.TensorProto) else None

    def _constant(self, i: int, position: int, place: ChannelPlace) -> None:
        """An operand that is stored: cut where it has a value per channel, left where it has one for all."""
        name = self._index.nodes[i].input[position]
        tensor = self._stored(name)
        if tensor is None:
            raise _RefusedError(f"{self._describe(i)} reads {name!r}, which is not stored")
        dims = list(tensor.dims)
        size = dims[place.axis] if len(dims) >= -place.axis else 1
        if size == 1:
            return
        stored = self._index.source(name) in self._index.initializers
        if size != self._channels or place.block != 1 or not stored:
            raise _RefusedError(f"{self._describe(i)} has other constants than one per channel")
        self._operand(i, position, len(dims) + place.axis)

    def _operand(self, i: int, position: int, axis: int) -> None:
        self._found.operands[i, position] = ChannelOperand(i, position, axis)

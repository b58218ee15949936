"""What makes an output: the operator that decides its kind, and where its axis of classes has gone since."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import is_external
from redtest_onnx.graph.shapes import Shape, Shapes

Maker = Literal[
    "softmax", "log-softmax", "unit-length", "normalised", "linear", "pooled", "index", "classifier", "other"
]

_KEEPS = frozenset(
    {"Identity", "Cast", "Dropout", "Optional", "OptionalGetElement", "QuantizeLinear", "DequantizeLinear"}
    | {"Slice", "Pad", "Resize", "Upsample", "DepthToSpace", "Expand", "Unsqueeze", "Squeeze", "Transpose"}
    | {"Reshape", "Flatten", "Gather", "CastLike", "Neg", "Split", "Clip", "ai.onnx.ml:ZipMap"}
)
_NORMS = ops.NORMALISATION - {"BatchNormalization", "LpNormalization", "LRN"}
_CHANNELS_FIRST = ops.CONVOLUTION
_LINEAR = frozenset(ops.WEIGHT_INPUTS) - {"Gather", "LSTM", "GRU", "RNN"} - ops.ATTENTION
_POOLING = frozenset(
    {"GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool", "ReduceMean", "ReduceMax"}
)
_SCORES: frozenset[Maker] = frozenset({"softmax", "log-softmax", "linear"})
_LONGEST = 64


@dataclass(frozen=True)
class Trace:
    """Where an output comes from.

    Attributes:
        maker: the operator that decides, by what it does.
        node: its index; None where the way ends at an input or constant.
        axis: the output's axis that it works along: classes of a softmax, channels of a linear operator;
            None where it can't be followed.
        behind: operators between it and the output, the output's first.
    """

    maker: Maker
    node: int | None
    axis: int | None
    behind: tuple[str, ...] = ()


@dataclass
class _Way:
    """The way back: the tensor reached, and which of its axes each axis of the output is."""

    tensor: str
    axes: list[int | None]
    behind: list[str] = field(default_factory=list)

    def found(self, maker: Maker, node: int | None, axis: int | None = None) -> Trace:
        """End here; `axis` is one of the reached tensor."""
        place = self.axes.index(axis) if axis is not None and axis in self.axes else None
        return Trace(maker, node, place, tuple(self.behind))


def trace_output(index: GraphIndex, shapes: Shapes, output: str, rank: int, opset: int) -> Trace:
    """Follow an output back to the operator that decides what it is.

    Args:
        index: the graph.
        shapes: sizes of its tensors for one sample.
        output: name of the output, or of another tensor.
        rank: its number of axes.
        opset: version of the default operator set; it decides on the axis of old softmaxes.
    """
    way = _Way(output, list(range(rank)))
    for _ in range(_LONGEST):
        node = index.producer.get(way.tensor)
        if node is None:
            return way.found("other", None)
        end = _end(index, shapes, way, node, opset)
        if end is not None:
            return end
    return way.found("other", None)


def _end(index: GraphIndex, shapes: Shapes, way: _Way, i: int, opset: int) -> Trace | None:
    """The trace if the node decides; None after one step further back."""
    node = index.nodes[i]
    kind = ops.qualified(node)
    rank = len(shapes.sizes.get(way.tensor, way.axes))
    if kind in ("Softmax", "LogSoftmax", "Hardmax") or kind == ops.MS + "QLinearSoftmax":
        axis = int(str(ops.attribute(node, "axis", -1 if opset >= 13 else 1)))
        return way.found("log-softmax" if kind == "LogSoftmax" else "softmax", i, axis % max(rank, 1))
    if (axis_of_sum := _divides_by_sum(index, node)) is not None:
        return way.found("softmax", i, axis_of_sum % max(rank, 1))
    if kind == "LpNormalization" or _divides_by_norm(index, node):
        return way.found("unit-length", i)
    if kind in _NORMS or _normalises(index, node, kind):
        return way.found("normalised", i)
    if kind.startswith("ai.onnx.ml:") and kind.endswith("Classifier"):
        made_scores = list(node.output).index(way.tensor) == 1
        return way.found("classifier" if made_scores else "index", i, 1 if made_scores else None)
    if kind in ("ArgMax", "ArgMin", "TopK", "NonZero", "NonMaxSuppression"):
        return way.found("index", i)
    if kind in _POOLING:
        return way.found("pooled", i)
    if kind in _LINEAR and i in index.weighted:
        return way.found("linear", i, 1 if kind in _CHANNELS_FIRST else rank - 1)
    source = _source(index, shapes, node, kind)
    if source is None:
        heads = _heads(index, shapes, node, opset) if kind in ("Add", "Sum", "Mean") else None
        return way.found("other", i) if heads is None else way.found(heads.maker, heads.node, heads.axis)
    way.behind.append(kind)
    way.axes = _moved(index, shapes, way, node, kind, source)
    way.tensor = source
    return None


def _source(index: GraphIndex, shapes: Shapes, node: onnx.NodeProto, kind: str) -> str | None:
    """The operand whose values go through a node that changes no meaning; None where others join them."""
    if kind in _KEEPS or kind in ops.ACTIVATION:
        return node.input[0] if node.input else None
    if kind == "BatchNormalization":
        return node.input[0]
    if kind not in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Where"):
        return None
    reads = [name for name in node.input if name in index.activations]
    if len(reads) == 2 and kind == "Mul":
        # A quantised product times its scale, computed on the way.
        reads = [name for name in reads if not _is_scale(index, shapes, name)]
    return reads[0] if len(set(reads)) == 1 else None


def _heads(index: GraphIndex, shapes: Shapes, node: onnx.NodeProto, opset: int) -> Trace | None:
    """What several heads have in common whose scores are added up, as those of DeiT; None for other sums."""
    sizes = {shapes.sizes.get(name) for name in node.input}
    rank = len(next(iter(sizes)) or ())
    if len(sizes) > 1 or not rank or any(len(index.readers[name]) > 1 for name in node.input):
        return None
    first, *others = (trace_output(index, shapes, name, rank, opset) for name in node.input)
    alike = all((other.maker, other.axis) == (first.maker, first.axis) for other in others)
    raw = all({"Add", "Cast", "Identity"}.issuperset(trace.behind) for trace in (first, *others))
    return first if alike and raw and first.axis is not None and first.maker in _SCORES else None


def _is_scale(index: GraphIndex, shapes: Shapes, name: str) -> bool:
    """Whether a tensor is what `DynamicQuantizeLinear` scaled by, perhaps times a constant."""
    producer = index.producer.get(name)
    while producer is not None and index.nodes[producer].op_type in ("Mul", "Reshape", "Unsqueeze", "Cast"):
        reads = index.activation_inputs(producer)
        if len(reads) != 1:
            return False
        name, producer = reads[0], index.producer.get(reads[0])
    return producer is not None and index.nodes[producer].op_type == "DynamicQuantizeLinear"


def _moved(
    index: GraphIndex, shapes: Shapes, way: _Way, node: onnx.NodeProto, kind: str, source: str
) -> list[int | None]:
    """The axes of the way after one step back."""
    rank = len(shapes.sizes.get(source, ())) if source in shapes.sizes else None
    if kind == "Transpose":
        order = ops.attribute(node, "perm")
        count = len(shapes.sizes.get(way.tensor, ())) or (rank or 0)
        perm = list(order) if isinstance(order, list | tuple) else list(reversed(range(count)))
        return [None if a is None or a >= len(perm) else int(perm[a]) for a in way.axes]
    if kind in ("Squeeze", "Unsqueeze", "Reshape", "Flatten", "Expand", "ai.onnx.ml:ZipMap"):
        after, before = shapes.sizes.get(way.tensor), shapes.sizes.get(source)
        if kind == "ai.onnx.ml:ZipMap":
            return list(range(len(before or ())))
        if after is None or before is None:
            return [None] * len(way.axes)
        places = reshaped(before, after)
        return [None if a is None else places.get(a) for a in way.axes]
    if kind == "Gather":
        indices = shapes.sizes.get(node.input[1])
        axis = int(str(ops.attribute(node, "axis", 0)))
        axis %= max(rank or 1, 1)
        if indices is None:
            return [None] * len(way.axes)
        added = len(indices) - 1
        return [
            None if a is None or axis <= a < axis + len(indices) else (a if a < axis else a - added)
            for a in way.axes
        ]
    if rank is not None and kind in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Where"):
        # Operands of lower rank are aligned behind.
        missing = len(shapes.sizes.get(way.tensor, (0,) * rank)) - rank
        return [None if a is None or a < missing else a - missing for a in way.axes]
    return way.axes


def reshaped(before: Shape, after: Shape) -> dict[int, int]:
    """Axes of `after` that are axes of `before` unchanged: equal sizes with as many elements in front."""
    found: dict[int, int] = {}
    fronts = [int(np.prod(before[:k])) for k in range(len(before))]
    taken: set[int] = set()
    for j, size in enumerate(after):
        front = int(np.prod(after[:j]))
        for k, (own, own_front) in enumerate(zip(before, fronts, strict=True)):
            if own == size and own_front == front and k not in taken:
                found[j] = k
                taken.add(k)
                break
    return found


def _divides_by_sum(index: GraphIndex, node: onnx.NodeProto) -> int | None:
    """The axis of a softmax that is spelt out: exponentials over their own sum; None for anything else."""
    if node.op_type != "Div" or len(node.input) != 2:
        return None
    total = index.producer.get(node.input[1])
    above = index.producer.get(node.input[0])
    if total is None or above is None or index.nodes[total].op_type != "ReduceSum":
        return None
    if index.nodes[total].input[0] != node.input[0] or index.nodes[above].op_type != "Exp":
        return None
    axes = constant_axes(index, index.nodes[total])
    return axes[0] if len(axes) == 1 else None


def _divides_by_norm(index: GraphIndex, node: onnx.NodeProto) -> bool:
    """Whether a node divides vectors by their own length."""
    if node.op_type not in ("Div", "Mul") or len(node.input) != 2:
        return False
    name = node.input[1]
    for _ in range(8):
        producer = index.producer.get(name)
        if producer is None:
            return False
        maker = index.nodes[producer]
        if maker.op_type in ("ReduceL2", "ReduceSumSquare"):
            return maker.input[0] == node.input[0]
        if maker.op_type == "ReduceSum":
            squares = index.producer.get(maker.input[0])
            return squares is not None and node.input[0] in index.nodes[squares].input
        if maker.op_type not in ("Sqrt", "Clip", "Max", "Add", "Expand", "Reciprocal", "Pow", "Unsqueeze"):
            return False
        name = next((read for read in maker.input if read in index.activations), "")
    return False


def _normalises(index: GraphIndex, node: onnx.NodeProto, kind: str) -> bool:
    """A layer normalisation that is spelt out: (x - mean) / deviation somewhere close in front."""
    names = [node.output[0]]
    kinds: set[str] = set()
    for _ in range(5):
        producer = index.producer.get(names[-1])
        if producer is None:
            return False
        maker = index.nodes[producer]
        kinds.add(maker.op_type)
        if maker.op_type == "Sub" and any(
            index.producer.get(read) is not None and index.nodes[index.producer[read]].op_type == "ReduceMean"
            for read in maker.input
        ):
            return "Div" in kinds or "Sqrt" in kinds or "Mul" in kinds
        if maker.op_type not in ("Add", "Mul", "Div"):
            return False
        reads = [read for read in maker.input if read in index.activations]
        if not reads:
            return False
        names.append(reads[0])
    return False


def constant_axes(index: GraphIndex, node: onnx.NodeProto) -> tuple[int, ...]:
    """The axes that a reduction works along; () where the .onnx file itself does not hold them."""
    axes = ops.attribute(node, "axes")
    if isinstance(axes, list | tuple):
        return tuple(int(a) for a in axes)
    if len(node.input) < 2:
        return ()
    stored: object = index.initializers.get(node.input[1])
    producer = index.producer.get(node.input[1])
    if producer is not None and index.nodes[producer].op_type == "Constant":
        stored = ops.attribute(index.nodes[producer], "value")
    if not isinstance(stored, onnx.TensorProto) or is_external(stored):
        return ()
    return tuple(int(a) for a in onnx.numpy_helper.to_array(stored).reshape(-1))

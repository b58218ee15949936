"""Outputs whose number of rows, or their order, depends on values: what lies in front of that."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import tensor_elements
from redtest_onnx.graph.shapes import Shapes

# They pick rows by value. TopK keeps their number, but any small change puts them in another order.
_PICKS = frozenset({"NonMaxSuppression", "NonZero", "Compress", "Unique", "TopK"})
# They make sizes of numbers that are computed on the way: operator -> inputs that tell sizes.
_SIZED = {
    "Slice": (1, 2, 3, 4),
    "Range": (0, 1, 2),
    "Expand": (1,),
    "ConstantOfShape": (0,),
    "Reshape": (1,),
    "Tile": (1,),
    "Split": (1,),
    "SplitToSequence": (1,),
    "Loop": (0, 1),
}


@dataclass(frozen=True)
class DataDependentPart:
    """The part of a graph behind which the rows of an output depend on values.

    Attributes:
        name: how messages call the operator that picks rows.
        front: the last floating-point tensors in front of it, each with the first output of a node of the
            part that reads it and the position among that node's inputs.
        layers_behind: whether operators with weights lie behind: then the front does not tell all.
        keeps_sizes: whether there are as many rows for all values, in another order only.
    """

    name: str
    front: tuple[tuple[str, str, int], ...]
    layers_behind: bool
    keeps_sizes: bool


def picks_by_value(index: GraphIndex, node: int) -> bool:
    """Whether the size or order of what a node makes depends on values that weights computed."""
    proto = index.nodes[node]
    kind = ops.qualified(proto)
    if kind in _PICKS or proto.op_type in ("NonMaxSuppression", "EfficientNMS_TRT", "BatchedNMS_TRT"):
        return bool(index.activation_inputs(node))
    places = _SIZED.get(kind, ())
    return any(k < len(proto.input) and proto.input[k] in index.activations for k in places)


def sized_by_value(index: GraphIndex) -> frozenset[str]:
    """Tensors whose sizes may depend on values that weights computed; TopK keeps sizes."""
    reached: set[str] = set()
    for i, node in enumerate(index.nodes):
        picks = node.op_type != "TopK" and picks_by_value(index, i)
        if picks or _carries_on(index, i, reached):
            reached.update(name for name in node.output if name)
    return frozenset(reached)


def data_dependent_part(
    index: GraphIndex, shapes: Shapes, output: str, orderless: frozenset[int] = frozenset()
) -> DataDependentPart | None:
    """What an output's rows depend on; None where their number and order are the same for all values.

    Args:
        index: the graph.
        shapes: types of its tensors.
        output: the output.
        orderless: nodes whose order doesn't reach it, see `runtime.outputs.order`.
    """
    above = _ancestors(index, output)
    picks = [i for i in sorted(above - orderless) if picks_by_value(index, i)]
    # Behind the last one only; a size or an order that a later layer takes back is none of the output's.
    picks = [i for i in picks if not _fixed_again(index, i, output, above)]
    if not picks:
        return None
    part = set(picks)
    for i in sorted(above):
        if not part.isdisjoint(_makers(index, i)):
            part.add(i)
    front = _front(index, shapes, part)
    layers = any(i in index.weighted for i in part)
    name = ops.qualified(index.nodes[picks[0]])
    fixed = all(index.nodes[i].op_type == "TopK" for i in picks)
    return DataDependentPart(name, front, layers, fixed) if front else None


def _ancestors(index: GraphIndex, output: str) -> set[int]:
    """Nodes whose values reach a tensor."""
    found: set[int] = set()
    stack = [output]
    while stack:
        node = index.producer.get(stack.pop())
        if node is None or node in found or ops.qualified(index.nodes[node]) in ops.SIZE_ONLY:
            continue
        found.add(node)
        stack.extend(index.reads[node])
    return found


def _makers(index: GraphIndex, node: int) -> set[int]:
    return {index.producer[name] for name in index.reads[node] if name in index.producer}


def _fixed_again(index: GraphIndex, pick: int, output: str, above: set[int]) -> bool:
    """Whether all ways from a node to the output pass one that writes rows back to their places."""
    reached = {name for name in index.nodes[pick].output if name}
    for i in sorted(above):
        if i > pick and _carries_on(index, i, reached):
            reached.update(name for name in index.nodes[i].output if name)
    return output not in reached


def _carries_on(index: GraphIndex, i: int, reached: set[str]) -> bool:
    """Whether what a node makes has rows as the tensors reached so far have them."""
    node = index.nodes[i]
    if reached.isdisjoint(index.reads[i]) or ops.qualified(node) in ops.SIZE_ONLY:
        return False
    # The result of a scatter has the sizes and the order of its first operand.
    return not node.op_type.startswith("Scatter") or node.input[0] in reached


def _front(index: GraphIndex, shapes: Shapes, part: set[int]) -> tuple[tuple[str, str, int], ...]:
    """The floating-point activations that the part reads; behind masks and indices, what those come from."""
    found: dict[str, tuple[str, str, int]] = {}
    stack = [(name, i) for i in sorted(part) for name in index.nodes[i].input]
    seen: set[str] = set()
    while stack:
        name, reader = stack.pop(0)
        maker = index.producer.get(name)
        if name in seen or maker is None or maker in part or name not in index.activations:
            continue
        seen.add(name)
        node = index.nodes[reader]
        if _holds_numbers(shapes, name):
            found[name] = (name, node.output[0], list(node.input).index(name))
        else:
            stack.extend((read, maker) for read in index.nodes[maker].input)
    return tuple(found[name] for name in sorted(found, key=lambda n: (index.producer[n], n)))


def _holds_numbers(shapes: Shapes, name: str) -> bool:
    """Floating-point values of more than one element."""
    sizes = shapes.sizes.get(name)
    code = shapes.dtypes.get(name, onnx.TensorProto.FLOAT)
    return code in _FLOATS and (sizes is None or tensor_elements(sizes) > 1)


_FLOATS = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
)

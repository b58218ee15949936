"""Which tensors of two files of the same network belong together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

import numpy as np
import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import is_external
from redtest_onnx.graph.quantisation import scale_operands
from redtest_onnx.graph.shapes import Shape, Shapes

# What quantisers append to the name of the tensor that they round.
_SUFFIX = re.compile(r"(_quantized|_QuantizeLinear_Output|_DequantizeLinear_Output)(_\d+)?$")
_VARIANT = re.compile(r"^(com\.microsoft:)?(QLinear|NhwcFused|Fused|DynamicQuantize|Nhwc|Q)(?=[A-Z])")
_ENDINGS = re.compile(r"(Integer|IntegerToFloat|NBits|Bnb4)$")


@dataclass(frozen=True)
class NumberTensor:
    """A tensor that holds numbers which depend on the inputs.

    Attributes:
        name: of the tensor.
        op: the operator that makes it, without what quantisation or fusion made of its name.
        shape: sizes for one sample; None if unknown.
        scale: factor and zero point of quantised integers; None for floating-point values.
        order: position among the graph's nodes.
    """

    name: str
    op: str
    shape: Shape | None
    scale: tuple[np.ndarray[tuple[int, ...], np.dtype[np.float64]], float] | None
    order: int


@dataclass(frozen=True)
class TensorMatch:
    """A tensor of each side, and what told that they belong together."""

    first: NumberTensor
    second: NumberTensor
    by: Literal["name", "position"]


def number_tensors(index: GraphIndex, shapes: Shapes) -> list[NumberTensor]:
    """The tensors of a graph that hold numbers which depend on the inputs, in the order of the graph."""
    return list(_numbers(index, shapes))


def match_tensors(first: Sequence[NumberTensor], second: Sequence[NumberTensor]) -> list[TensorMatch]:
    """Pairs in the order of the first graph: by name, else by operator and sizes in the same order.

    A floating-point tensor also matches its quantised self, whose name quantisers derive from its own, and
    that alone where another operator makes what has its name: a quantiser that leaves a rectifier to the
    rounding gives the rectifier's name to what was its input.
    """
    others = _by_plain_name(second)
    matches, matched, taken = [], set(), set()
    for plain, ours in _by_plain_name(first).items():
        pair = _namesakes(plain, ours, others.get(plain, []))
        if pair is not None:
            matches.append(TensorMatch(*pair, "name"))
            matched.add(pair[0].name)
            taken.add(pair[1].name)
    left = [tensor for tensor in first if tensor.name not in matched]
    right = [tensor for tensor in second if tensor.name not in taken]
    keys = [[f"{t.op} {t.shape}" for t in side if t.shape is not None] for side in (left, right)]
    sides = [[t for t in side if t.shape is not None] for side in (left, right)]
    blocks = SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_matching_blocks()
    for block in blocks:
        for k in range(block.size):
            matches.append(TensorMatch(sides[0][block.a + k], sides[1][block.b + k], "position"))
    return sorted(matches, key=lambda match: match.first.order)


def _by_plain_name(tensors: Sequence[NumberTensor]) -> dict[str, list[NumberTensor]]:
    """Tensors by their name without what quantisers append to it."""
    found: dict[str, list[NumberTensor]] = {}
    for tensor in tensors:
        found.setdefault(_SUFFIX.sub("", tensor.name), []).append(tensor)
    return found


def _namesakes(
    plain: str, first: Sequence[NumberTensor], second: Sequence[NumberTensor]
) -> tuple[NumberTensor, NumberTensor] | None:
    """Of the tensors that have a name but for suffixes, the two that hold the same; None without any."""

    def unlike(pair: tuple[NumberTensor, NumberTensor]) -> int:
        one, other = pair
        rounded = (one.name != plain) + (other.name != plain)
        return rounded or (0 if one.op == other.op else 3)

    pairs = ((one, other) for one in first for other in second if _same_sizes(one, other))
    return min(pairs, key=unlike, default=None)


def _numbers(index: GraphIndex, shapes: Shapes) -> Iterator[NumberTensor]:
    for i, node in enumerate(index.nodes):
        if ops.qualified(node) in ops.NO_TENSOR:
            continue
        for name in node.output:
            if not name or name not in index.activations:
                continue
            code = shapes.dtypes.get(name)
            scale = None
            if code in _QUANTISED:
                scale = _stored_scale(index, name)
                if scale is None:
                    continue
            elif not shapes.is_float(name) or code is None:
                continue
            yield NumberTensor(name, _plain(ops.qualified(node)), shapes.sizes.get(name), scale, i)


def _stored_scale(
    index: GraphIndex, tensor: str
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float64]], float] | None:
    """Scale [] and zero point of a quantised tensor, where the file stores one of each."""
    operands = scale_operands(index, tensor)
    if operands is None or operands[2] is not None:
        return None
    stored = [index.initializers.get(name) for name in operands[:2]]
    if stored[0] is None or any(is_external(t) for t in stored if t is not None):
        return None
    scale = onnx.numpy_helper.to_array(stored[0]).astype(np.float64).reshape(-1)
    zero = 0.0 if stored[1] is None else float(onnx.numpy_helper.to_array(stored[1]).reshape(-1)[0])
    return scale[:1].reshape(()), zero


def _plain(op: str) -> str:
    return _ENDINGS.sub("", _VARIANT.sub("", op)).removeprefix(ops.MS)


def _same_sizes(one: NumberTensor, other: NumberTensor) -> bool:
    return one.shape is None or other.shape is None or one.shape == other.shape


_QUANTISED = frozenset({onnx.TensorProto.INT8, onnx.TensorProto.UINT8})

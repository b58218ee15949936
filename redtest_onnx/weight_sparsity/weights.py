"""The weights of a model: stored tensors of two axes or more that its operators apply."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import onnx

from redtest_onnx.arrays import Numbers
from redtest_onnx.errors import InputError
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import FLOAT_TYPES
from redtest_onnx.weight_sparsity.coding import Affine, Coding, PackedBlocks, Plain
from redtest_onnx.weight_sparsity.layout import Layout, layout_of
from redtest_onnx.weight_sparsity.scope import Scope, Source

_MS = ops.MS
# Operators on integers: where scale and zero point of the weights stand among the inputs; None for a scale
# that is multiplied behind the operator.
_INTEGER: dict[str, tuple[int | None, int]] = {
    "QLinearConv": (4, 5),
    "QLinearMatMul": (4, 5),
    "ConvInteger": (None, 3),
    "MatMulInteger": (None, 3),
    _MS + "QGemm": (4, 5),
    _MS + "MatMulIntegerToFloat": (3, 5),
    _MS + "DynamicQuantizeMatMul": (2, 3),
    _MS + "QAttention": (4, 7),
}
# Where scale and zero point of the input weights stand, and of the recurrent ones, by their position.
_LSTM = {1: (8, 9), 2: (10, 11)}


@dataclass(frozen=True)
class Weight:
    """A weight tensor.

    Attributes:
        name: of the stored tensor.
        operator: name of the first operator that applies it.
        kind: of that operator.
        tensor: as it is stored.
        coding: from stored numbers to real values.
        layout: where its neurons lie.
    """

    name: str
    operator: str
    kind: str
    tensor: onnx.TensorProto
    coding: Coding
    layout: Layout

    @property
    def elements(self) -> int:
        """Number of weights."""
        return prod(self.layout.view)

    @property
    def inputs(self) -> int:
        """Weights of one neuron."""
        return self.elements // self.layout.count if self.elements else 0

    def values(self, model: Model) -> Numbers:
        """Its real values, read now.

        Raises:
            InputError: what scales its numbers has other sizes.
        """
        try:
            values = self.coding.decode(model, self.tensor)
            if values.size != self.elements:
                raise ValueError(f"sizes {values.shape}")
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise InputError(
                f"its scale or zero point does not fit its sizes {list(self.tensor.dims)}",
                where=f"{model.label}, tensor {self.name!r}",
                hint="quantise the model again",
            ) from error
        return values

    def rows(self, model: Model) -> Numbers:
        """[neurons, inputs] real values, read now."""
        return self.layout.rows(self.values(model))


@dataclass(frozen=True)
class UnprunedTensor:
    """Weights that can't be measured, and why."""

    name: str
    operator: str
    reason: str


def find_weights(model: Model) -> tuple[list[Weight], list[UnprunedTensor]]:
    """All weight tensors in graph order, each once, and what can't be measured.

    Weights are what convolutions, matrix products, embeddings and recurrent cells apply, also behind
    Transpose, Cast and DequantizeLinear and inside branches; tensors of fewer than two axes (biases, scales)
    do not count.
    """
    weights: list[Weight] = []
    skipped: list[UnprunedTensor] = []
    seen: set[int] = set()
    for found in _walk(Scope(model)):
        if isinstance(found, UnprunedTensor):
            skipped.append(found)
        elif id(found.tensor) not in seen:
            seen.add(id(found.tensor))
            weights.append(found)
    return weights, skipped


def prunable(weight: Weight) -> bool:
    """Whether single weights can be set to zero in the file."""
    return not isinstance(weight.coding, PackedBlocks)


def _walk(scope: Scope) -> Iterator[Weight | UnprunedTensor]:
    for node in scope.index.nodes:
        kind = ops.qualified(node)
        if kind in ops.WEIGHT_ATTRIBUTES:
            yield _skipped(node, _name(node), "its weights are no tensors")
        for position in ops.WEIGHT_INPUTS.get(kind, ()):
            if position < len(node.input) and node.input[position] not in ("", *scope.input_dependent):
                yield from _operand(scope, node, position)
    for child in scope.children:
        yield from _walk(child)


def _operand(scope: Scope, node: onnx.NodeProto, position: int) -> Iterator[Weight | UnprunedTensor]:
    name, kind = node.input[position], ops.qualified(node)
    source = scope.source(name)
    if source is None and kind == "Gather":
        return  # sizes are gathered from shapes
    if source is None:
        yield _skipped(node, name, "computed from constants on the way")
        return
    if kind == _MS + "MatMulNBits":
        yield _packed(scope, node, source)
        return
    if len(source.tensor.dims) < 2:
        return
    layout = layout_of(node, position, source.view, source.turned)
    coding = _coding(scope, node, source, position)
    if layout is None:
        yield _skipped(node, source.name, "where its neurons lie is not defined")
    elif isinstance(coding, str):
        yield _skipped(node, source.name, coding)
    else:
        yield Weight(source.name, _name(node), kind, source.tensor, coding, layout)


def _coding(scope: Scope, node: onnx.NodeProto, source: Source, position: int) -> Coding | str:
    """How the numbers are coded, or why that can't be told."""
    kind = ops.qualified(node)
    if source.dequantize is not None:
        behind = source.dequantize
        axis = int(str(ops.attribute(behind, "axis", 1)))
        block = int(str(ops.attribute(behind, "block_size", 0)))
        return _affine(scope, behind, scope.stored(behind.input[1]), 2, axis, block)
    if kind in _INTEGER:
        at, zero = _INTEGER[kind]
        axis = 0 if kind in ops.CONVOLUTION else len(source.tensor.dims) - 1
        if kind == _MS + "QGemm" and ops.attribute(node, "transB", 0):
            axis = 0
        scale = scope.integer_scale(node) if at is None else scope.stored(node.input[at])
        return _affine(scope, node, scale, zero, axis, 0)
    if kind == _MS + "DynamicQuantizeLSTM":
        at, zero = _LSTM[position]
        return _affine(scope, node, scope.stored(node.input[at]), zero, 0, 0)
    if source.tensor.data_type not in FLOAT_TYPES:
        return "stored as integers without a scale" if "Bnb4" not in kind else "packed in an unknown code"
    return Plain()


def _affine(
    scope: Scope, node: onnx.NodeProto, scale: onnx.TensorProto | None, position: int, axis: int, block: int
) -> Coding | str:
    zero = node.input[position] if len(node.input) > position else ""
    if scale is None or (zero and scope.stored(zero) is None):
        return "its scale or zero point is not stored"
    return Affine(scale, scope.stored(zero), axis, block)


def _packed(scope: Scope, node: onnx.NodeProto, source: Source) -> Weight | UnprunedTensor:
    number = {name: int(str(ops.attribute(node, name, 0))) for name in ("K", "N", "block_size", "bits")}
    scale = scope.stored(node.input[2])
    zero = node.input[3] if len(node.input) > 3 else ""
    if scale is None or (zero and scope.stored(zero) is None):
        return _skipped(node, source.name, "its scale or zero point is not stored")
    bits = number["bits"] or 4
    if 8 % bits:
        return _skipped(node, source.name, f"packed in {bits} bits")
    inputs, outputs = number["K"], number["N"]
    coding = PackedBlocks(scale, scope.stored(zero), inputs, outputs, bits, number["block_size"])
    layout = Layout((outputs, inputs), (0,))
    return Weight(source.name, _name(node), ops.qualified(node), source.tensor, coding, layout)


def _skipped(node: onnx.NodeProto, name: str, reason: str) -> UnprunedTensor:
    return UnprunedTensor(name, _name(node), reason)


def _name(node: onnx.NodeProto) -> str:
    return node.name or next(filter(None, node.output), node.op_type)

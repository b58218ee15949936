"""Expose inner tensors: reduce each activation inside the graph, right behind the operator that makes it.

What leaves the graph is small: pooled features [n, p], or the Gram matrix [n, n] of centred features. With
the reductions next to their producers ONNX Runtime frees the activations as early as in a plain run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import Shape

Pooling = Literal["mean", "none"]
Form = Literal["features", "gram"]

PREFIX = "redtest/"
_OLDEST_OPSET = 7  # before it, operators broadcast only where told to


@dataclass(frozen=True)
class Tap:
    """How one activation is reduced.

    Attributes:
        tensor: the activation.
        shape: its sizes in a run with `batch` samples.
        dtype: its ONNX element type.
        batch: number of samples.
        batch_axis: the axis that holds the samples (times a constant factor, as for windows of an image).
        pooling: "mean" averages over the positions, "none" keeps all values.
        form: "features" [n, p], or the "gram" [n, n] of the features centred over the samples.
        channels_first: whether a tensor of three axes is [n, channels, length], as 1-D convolutions make it,
            and no sequence [n, tokens, channels].
    """

    tensor: str
    shape: Shape
    dtype: int
    batch: int
    batch_axis: int
    pooling: Pooling
    form: Form
    channels_first: bool = False

    @property
    def output(self) -> str:
        """Name of the reduced value among the probe's outputs."""
        return f"{PREFIX}{self.tensor}"

    @property
    def level(self) -> str:
        """Name of the output that tells how large a Gram's features are before centring."""
        return f"{self.output}/level"

    @property
    def features(self) -> int:
        """Number of features per sample after pooling."""
        if self.pooling == "none" or len(self.shape) <= 2:
            return prod(self.shape) // self.batch
        return self.shape[_channel_axis(self)]


def find_batch_axis(small: Shape, large: Shape, factor: int) -> int | None:
    """The axis that grows with the number of samples, from sizes seen with two batch sizes.

    Args:
        small: sizes with n samples.
        large: sizes with `factor` times as many.
        factor: how many times as many.

    Returns:
        The only axis that grew, by exactly that factor; None if there is no such axis.
    """
    if len(small) != len(large):
        return None
    grown = [axis for axis, (a, b) in enumerate(zip(small, large, strict=True)) if a != b]
    return grown[0] if len(grown) == 1 and large[grown[0]] == factor * small[grown[0]] else None


def build_probe(model: Model, taps: Iterable[Tap]) -> Model:
    """A copy of the model whose outputs are the reduced activations of the taps.

    Raises:
        InputError: the model's operator set is too old to append to.
    """
    opset = model.opsets.get("ai.onnx", 0)
    if opset < _OLDEST_OPSET:
        raise InputError(
            f"its operator set {opset} is too old to be measured",
            where=model.label,
            hint="convert it with onnx.version_converter to opset 13 or newer",
        )
    behind: dict[str, list[onnx.NodeProto]] = {}
    outputs: list[onnx.ValueInfoProto] = []
    for tap in taps:
        nodes = _Reduction(tap, opset).nodes()
        behind[tap.tensor] = nodes
        sizes = [tap.batch, tap.features if tap.form == "features" else tap.batch]
        outputs.append(helper.make_tensor_value_info(tap.output, TensorProto.FLOAT, sizes))
        if tap.form == "gram":
            outputs.append(helper.make_tensor_value_info(tap.level, TensorProto.FLOAT, []))
    return _with_outputs(model, behind, outputs)


def build_shape_probe(model: Model, names: Iterable[str]) -> Model:
    """A copy of the model that returns the sizes of the given tensors instead of its outputs.

    Each output is called like its tensor, with `PREFIX` before it.
    """
    behind: dict[str, list[onnx.NodeProto]] = {}
    outputs: list[onnx.ValueInfoProto] = []
    for name in names:
        output = f"{PREFIX}{name}"
        behind[name] = [helper.make_node("Shape", [name], [output], name=output)]
        outputs.append(helper.make_tensor_value_info(output, TensorProto.INT64, [None]))
    return _with_outputs(model, behind, outputs)


def build_range_probe(model: Model, names: Iterable[str]) -> Model:
    """A copy of the model that returns the largest magnitude of each given tensor instead of its outputs.

    Each output is called like its tensor, with `PREFIX` before it.
    """
    behind: dict[str, list[onnx.NodeProto]] = {}
    outputs: list[onnx.ValueInfoProto] = []
    for name in names:
        output = f"{PREFIX}{name}"
        size, cast = f"{output}/size", f"{output}/float"
        behind[name] = [
            helper.make_node("Cast", [name], [cast], name=cast, to=TensorProto.FLOAT),
            helper.make_node("Abs", [cast], [size], name=size),
            # Without axes, and in all operator sets alike: the largest of all.
            helper.make_node("ReduceMax", [size], [output], name=output, keepdims=0),
        ]
        outputs.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
    return _with_outputs(model, behind, outputs)


def expose(model: Model, names: Iterable[str]) -> Model:
    """A copy of the model whose outputs are the given tensors as they are."""
    outputs = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names)]
    return _with_outputs(model, {}, outputs)


def _with_outputs(
    model: Model, behind: Mapping[str, list[onnx.NodeProto]], outputs: list[onnx.ValueInfoProto]
) -> Model:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    nodes: list[onnx.NodeProto] = [new for spec in model.inputs for new in behind.get(spec.name, ())]
    for node in graph.node:
        nodes.append(node)
        for name in node.output:
            nodes.extend(behind.get(name, ()))
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.output[:]
    graph.output.extend(outputs)
    # Declared inner shapes may be wrong or fixed to another batch; ONNX Runtime infers its own.
    del graph.value_info[:]
    return model.edited(proto)


class _Reduction:
    """Writes the nodes that reduce one activation."""

    def __init__(self, tap: Tap, opset: int) -> None:
        self._tap = tap
        self._opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._value = tap.tensor

    def nodes(self) -> list[onnx.NodeProto]:
        tap = self._tap
        if tap.dtype != TensorProto.FLOAT:
            self._add("Cast", to=TensorProto.FLOAT)
        shape = tap.shape
        if tap.batch_axis != 0:
            order = [tap.batch_axis, *(axis for axis in range(len(shape)) if axis != tap.batch_axis)]
            self._add("Transpose", perm=order)
        if tap.pooling == "mean" and len(shape) > 2:
            self._pool()
        elif len(shape) != 2 or shape[0] != tap.batch:
            self._reshape([tap.batch, -1])
        if tap.form == "gram":
            self._gram()
        elif not self._nodes:
            self._add("Identity")
        self._nodes[-1].output[0] = tap.output
        return self._nodes

    def _pool(self) -> None:
        """[n, channels, positions...] or [n, positions..., channels] -> [n, channels]."""
        tap = self._tap
        channel = _channel_axis(tap)
        if tap.shape[tap.batch_axis] != tap.batch:
            # Windows of one sample lie next to each other in the batch axis: they are positions, too.
            self._reshape([tap.batch, -1, tap.shape[channel]])
            self._mean([1])
            return
        kept = [axis for axis in range(len(tap.shape)) if axis != tap.batch_axis]
        self._mean([k + 1 for k, axis in enumerate(kept) if axis != channel])

    def _gram(self) -> None:
        """[n, p] -> [n, n], features centred over the samples: without that, float32 cancels."""
        features = self._value
        self._mean([0], keepdims=1)
        mean = self._value
        self._add("Abs")
        # Without axes, and in all operator sets alike: the largest of all.
        self._nodes.append(helper.make_node("ReduceMax", [self._value], [self._tap.level], keepdims=0))
        self._add("Sub", [features, mean])
        inputs = [self._value, self._value]
        if self._opset < 11:
            inputs.append(self._constant("zero", np.zeros(1, np.float32)))
        self._add("Gemm", inputs, transB=1)

    def _mean(self, axes: list[int], keepdims: int = 0) -> None:
        if self._opset < 18:
            self._add("ReduceMean", axes=axes, keepdims=keepdims)
        else:
            operand = self._constant(f"axes{len(self._nodes)}", np.array(axes, np.int64))
            self._add("ReduceMean", [self._value, operand], keepdims=keepdims)

    def _reshape(self, sizes: list[int]) -> None:
        self._add("Reshape", [self._value, self._constant("sizes", np.array(sizes, np.int64))])

    def _constant(self, name: str, value: np.ndarray[tuple[int], np.dtype[np.generic]]) -> str:
        full = f"{self._tap.output}/{name}"
        self._nodes.append(
            helper.make_node("Constant", [], [full], name=full, value=onnx.numpy_helper.from_array(value))
        )
        return full

    def _add(self, op: str, inputs: list[str] | None = None, **attributes: object) -> None:
        name = f"{self._tap.output}/{op}{len(self._nodes)}"
        node = helper.make_node(op, inputs or [self._value], [name], name=name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        self._value = name


def _channel_axis(tap: Tap) -> int:
    """Images are [N, C, ...]; sequences, states and everything in windows end with their channels."""
    images = tap.batch_axis == 0 and tap.shape[0] == tap.batch and (len(tap.shape) != 3 or tap.channels_first)
    return 1 if images else max(axis for axis in range(len(tap.shape)) if axis != tap.batch_axis)

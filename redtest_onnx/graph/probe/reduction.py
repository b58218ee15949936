"""Nodes that reduce one activation inside the graph: to pooled features, or to a Gram matrix."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from redtest_onnx.graph.masks import Mask
from redtest_onnx.graph.probe.constants import PREFIX, Constants
from redtest_onnx.graph.probe.gram_loop import GramBody
from redtest_onnx.graph.probe.masking import MaskedPositions
from redtest_onnx.graph.shapes import Shape

Pooling = Literal["mean", "none", "cls", "token"]
Form = Literal["features", "gram"]


# Blocks of a Gram: large enough for the kernels, small enough to skip most of what symmetry gives anyway.
_ROWS = 64
_TWO_BLOCKS = 32  # samples from which two blocks pay
_MOST_BLOCKS = 8
_COLUMNS = 4096  # of an activation at a time
_ELEMENTS = 1 << 20  # or as many columns as this allows, where samples are few
# Rows a multiple of 4 KiB apart compete for the same places in the cache: products are a fifth slower then.
_ALIASED = 1024
_SIDESTEP = 16
OLDEST_GRAM_OPSET = 10
"""The operator set from which slices take their bounds from the graph."""


@dataclass(frozen=True)
class Tap:
    """How one activation is reduced.

    Attributes:
        tensor: the activation.
        shape: its sizes in a run with `batch` samples.
        dtype: its ONNX element type.
        batch: number of samples.
        batch_axis: the axis that holds the samples (times a constant factor, as for windows of an image).
        pooling: "mean" averages over the positions, "none" keeps all values; of a sequence [n, tokens,
            channels] "cls" keeps the first token and "token" one token of each sample, drawn at random.
        form: "features" [n, p], or the "gram" of the features.
        channels_first: whether a tensor of three axes is [n, channels, length], as 1-D convolutions make it,
            and no sequence [n, tokens, channels].
        whole: whether a Gram is one product of all columns, and leaves the graph as [n, n]. That takes a
            second copy of the activation and twice the work, in few large operators, as suits a GPU.
        channels_last: whether images are [N, H, W, C], as TensorFlow has them.
        lifted: whether all of the tensor belongs to one sample, so that an axis of samples [1, ...] is put in
            front of it first; `shape` has it already. Its channels come last.
        mask: which positions of a sequence count, see `masking`; None if all do. Of the others nothing is
            seen: they are left out of means and choices, and are 0 where all values are kept.
    """

    tensor: str
    shape: Shape
    dtype: int
    batch: int
    batch_axis: int
    pooling: Pooling
    form: Form
    channels_first: bool = False
    whole: bool = False
    lifted: bool = False
    channels_last: bool = False
    mask: Mask | None = None

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

    @property
    def sequence(self) -> bool:
        """Whether it is [n, tokens, channels], one row of tokens per sample."""
        plain = self.batch_axis == 0 and self.shape[0] == self.batch
        return plain and len(self.shape) == 3 and not self.channels_first

    @property
    def flat(self) -> str:
        """Name of the features that a Gram is made from where they are kept apart from it."""
        return f"{self.output}/flat"

    @property
    def output_sizes(self) -> list[int]:
        """Sizes of the reduced value: [n, p], the flat lower blocks of a Gram, or all of it."""
        if self.form == "features":
            return [self.batch, self.features]
        if self.whole:
            return [self.batch, self.batch]
        bounds = gram_bounds(self.batch)
        return [sum((stop - start) * stop for start, stop in pairwise(bounds))]


def gram_bounds(samples: int) -> tuple[int, ...]:
    """Where the blocks of rows begin in which a Gram leaves the graph, and the end of the last."""
    blocks = min(max(-(-samples // _ROWS), 2 if samples >= _TWO_BLOCKS else 1), _MOST_BLOCKS)
    rows = -(-samples // blocks)
    return (*range(0, samples, rows), samples)


def gram_width(samples: int, features: int) -> int:
    """How many columns of an activation [samples, features] go into a Gram at a time."""
    most = max(_COLUMNS, _ELEMENTS // samples)
    turns = -(-features // most)
    width = -(-features // turns)
    if width % _ALIASED:
        return width
    return (width if turns > 1 else width // 2) + _SIDESTEP


def unpack_gram(flat: Any, samples: int, gram: Any) -> None:
    """Write the symmetric Gram matrix from the blocks on and below its diagonal.

    Args:
        flat: the blocks in order of rows, then columns, each in C order, or all of it as [n, n]; NumPy or
            CuPy.
        samples: n.
        gram: [n, n] float64 of the same kind, which takes the result.
    """
    if flat.ndim == 2:
        gram[...] = flat
        return
    position = 0
    bounds = gram_bounds(samples)
    for start, stop in pairwise(bounds):
        for left, right in pairwise(bound for bound in bounds if bound <= stop):
            size = (stop - start) * (right - left)
            block = flat[position : position + size].reshape(stop - start, right - left)
            gram[start:stop, left:right] = block
            if left != start:
                gram[left:right, start:stop] = block.T
            position += size


class Reduction:
    """Writes the nodes that reduce one activation.

    Args:
        tap: what to reduce and how.
        opset: the model's operator set.
        constants: takes the constants.
        positions: [n] in [0, 1), where in its sequence the token of each sample lies.
    """

    def __init__(
        self, tap: Tap, opset: int, constants: Constants, positions: npt.NDArray[np.float64] | None = None
    ) -> None:
        self._tap = tap
        self._opset = opset
        self._constants = constants
        self._positions = positions
        self._nodes: list[onnx.NodeProto] = []
        self._value = tap.tensor

    def nodes(self) -> list[onnx.NodeProto]:
        """The nodes from the activation to the reduced value, in an order in which they can run."""
        self._features()
        if self._tap.form == "gram":
            self._product()
        elif not self._nodes:
            self._add("Identity")
        return self._named()

    def gram_nodes(self, features: str) -> list[onnx.NodeProto]:
        """The nodes from features [n, p] to the reduced value."""
        self._value = features
        self._product()
        return self._named()

    def _named(self) -> list[onnx.NodeProto]:
        self._nodes[-1].output[0] = self._tap.output
        return self._nodes

    def _features(self) -> None:
        """The activation -> [n, p]."""
        tap = self._tap
        if tap.dtype != TensorProto.FLOAT:
            self._add("Cast", to=TensorProto.FLOAT)
        shape = tap.shape
        if tap.lifted:
            self._lift()
        if tap.batch_axis != 0:
            order = [tap.batch_axis, *(axis for axis in range(len(shape)) if axis != tap.batch_axis)]
            self._add("Transpose", perm=order)
        if tap.mask is not None and tap.sequence:
            masked = MaskedPositions(tap.output, tap.batch, self._opset, self._constants)
            self._nodes += masked.nodes(self._value, tap.pooling, self._positions)
            self._value = self._nodes[-1].output[0]
        elif tap.sequence and tap.pooling in ("cls", "token"):
            self._one_token()
        elif tap.pooling != "none" and len(shape) > 2:
            self._pool()
        elif len(shape) != 2 or shape[0] != tap.batch:
            self._reshape([tap.batch, -1])

    def _lift(self) -> None:
        """[...] -> [1, ...], whatever its sizes are."""
        if self._opset < 13:
            self._add("Unsqueeze", axes=[0])
        else:
            self._add("Unsqueeze", [self._value, self._constants.integers([0])])

    def _pool(self) -> None:
        """[n, channels, positions...] or [n, positions..., channels] -> [n, channels]."""
        tap = self._tap
        channel = _channel_axis(tap)
        if tap.shape[tap.batch_axis] != tap.batch:
            # Windows of one sample lie next to each other in the batch axis: they are positions, too.
            self._reshape([tap.batch, -1, tap.shape[channel]])
            self._mean([1])
        elif channel == 1 and len(tap.shape) == 4:
            # Unlike a mean over axes, this exists for every layout that ONNX Runtime has for images.
            self._add("GlobalAveragePool")
            self._reshape([tap.batch, -1])
        else:
            kept = [axis for axis in range(len(tap.shape)) if axis != tap.batch_axis]
            self._mean([k + 1 for k, axis in enumerate(kept) if axis != channel])

    def _one_token(self) -> None:
        """[n, tokens, channels] -> [n, channels]."""
        tap, tokens = self._tap, self._tap.shape[1]
        chosen = np.zeros(tap.batch, np.int64)
        if tap.pooling == "token" and self._positions is not None:
            chosen = (self._positions * tokens).astype(np.int64)
        self._reshape([tap.batch * tokens, -1])
        rows = self._constants.integers(np.arange(tap.batch) * tokens + chosen)
        self._add("Gather", [self._value, rows], axis=0)

    def _product(self) -> None:
        """[n, p] -> the Gram.

        Features are shifted by a mean first: without that, float32 cancels where they share a large one. What
        the shift leaves of the mean is small and is taken out of the Gram itself later.
        """
        if self._tap.whole:
            self._whole_gram()
        else:
            self._gram()

    def _whole_gram(self) -> None:
        features = self._value
        self._mean([0], keepdims=1)
        mean = self._value
        self._add("Abs")
        self._add("ReduceMax", keepdims=0)  # of all, in all operator sets alike
        self._nodes[-1].output[0] = self._tap.level
        self._add("Sub", [features, mean])
        self._add("Gemm", [self._value, self._value], transB=1)

    def _gram(self) -> None:
        """The blocks on and below the diagonal, one behind the other; shifted by the mean of the first rows.

        The nodes stand in a Loop over ranges of columns, also where there is one range only: ONNX Runtime
        loads thousands of nodes in the main graph far more slowly than as many in bodies.
        """
        tap, bounds = self._tap, list(pairwise(gram_bounds(self._tap.batch)))
        width = gram_width(tap.batch, tap.features)
        body = GramBody(tap.output, self._opset, self._value, bounds, width)
        results = [f"{tap.output}/{name}" for name in body.sums]
        start = [self._constants.zeros(shape) for shape in body.sums.values()]
        count = self._constants.scalar(-(-tap.features // width))
        inputs = [count, self._constants.true(), self._constants.zeros(()), *start]
        loop = helper.make_node(
            "Loop", inputs, [tap.level, *results], f"{tap.output}/Loop", body=body.graph()
        )
        self._nodes.append(loop)
        flat = []
        for name in results:
            self._value = name
            self._reshape([-1])
            flat.append(self._value)
        self._add("Concat", flat, axis=0)

    def _mean(self, axes: list[int], keepdims: int = 0) -> None:
        if self._opset < 18:
            self._add("ReduceMean", axes=axes, keepdims=keepdims)
        else:
            self._add("ReduceMean", [self._value, self._constants.integers(axes)], keepdims=keepdims)

    def _reshape(self, sizes: list[int]) -> None:
        self._add("Reshape", [self._value, self._constants.integers(sizes)])

    def _add(self, op: str, inputs: list[str] | None = None, **attributes: object) -> None:
        name = f"{self._tap.output}/{op}{len(self._nodes)}"
        node = helper.make_node(op, inputs or [self._value], [name], name=name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        self._value = name


def _channel_axis(tap: Tap) -> int:
    """Images are [N, C, ...]; sequences, states and everything in windows end with their channels."""
    images = (
        not (tap.lifted or tap.channels_last)
        and tap.batch_axis == 0
        and tap.shape[0] == tap.batch
        and (len(tap.shape) != 3 or tap.channels_first)
    )
    return 1 if images else max(axis for axis in range(len(tap.shape)) if axis != tap.batch_axis)

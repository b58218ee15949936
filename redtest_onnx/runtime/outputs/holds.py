"""Finds what an output of a fixed number of rows holds: scores of classes, an embedding, or values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.masks import Mask
from redtest_onnx.graph.model import Model, TensorSpec
from redtest_onnx.graph.next_tokens import decoder_vocabulary
from redtest_onnx.graph.shapes import FLOAT_TYPES, Shape, Shapes
from redtest_onnx.runtime.outputs.kinds import Kind
from redtest_onnx.runtime.outputs.trace import Trace, trace_output
from redtest_onnx.runtime.outputs.words import meaning
from redtest_onnx.runtime.shapes import WHOLE

_CLASS_METADATA = re.compile(r"^(names|classes|class_names|labels|id2label|categories)$", re.IGNORECASE)
_WIDE = 64  # entries of a vector that are more than a handful of numbers
_IMAGE = 4  # channels of colours and transparency
_COARSEST = 8  # maps of scores are at most so many times smaller than the image


@dataclass(frozen=True)
class OutputGraph:
    """What the finding looks at.

    `mask` says which positions of sequences count, `orderless` which choices leave no order in an output.
    """

    model: Model
    index: GraphIndex
    shapes: Shapes
    sample_axes: Mapping[str, int]
    labelled: bool
    mask: Mask | None = None
    orderless: Mapping[str, frozenset[int]] = field(default_factory=dict)

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return self.model.opsets.get("ai.onnx", 17)

    @property
    def names_classes(self) -> bool:
        """Whether the file's metadata lists classes."""
        return any(_CLASS_METADATA.match(entry.key) for entry in self.model.proto.metadata_props)

    @property
    def strided(self) -> bool:
        """Whether the file's metadata tells strides of heads, as detectors' does."""
        return any(entry.key == "stride" for entry in self.model.proto.metadata_props)


def kind_of(graph: OutputGraph, name: str, rank: int) -> tuple[Kind, int | None, str]:
    """Kind, axis of classes and reason for a tensor of a fixed number of rows."""
    trace = trace_output(graph.index, graph.shapes, name, rank, graph.opset)
    if _dtype(graph, name) not in FLOAT_TYPES and not _quantised(graph, name, trace):
        return "elements", None, "it holds integers, truth values or strings"
    axis, sizes = trace.axis, graph.shapes.sizes.get(name, ())
    classes = sizes[axis] if axis is not None and axis < len(sizes) else 0
    if trace.maker in ("softmax", "log-softmax", "classifier"):
        if axis is None:
            return "values", None, "a softmax whose axis can't be followed"
        if classes == 1:
            return "values", None, "one score"
        return _scores(graph, name, rank, axis), axis, f"{trace.maker} along axis {axis}"
    # One vector per sample, whether samples have an axis or are a run each.
    vector = rank == 2 or (rank == 1 and graph.sample_axes.get(name) == WHOLE)
    if trace.maker == "unit-length" and vector:
        return "embedding", None, "vectors of unit length"
    if trace.maker == "index":
        return "values", None, "values that are picked"
    if (rank < 2 and not vector) or (vector and sizes[-1:] == (1,) and not _open_width(graph, name)):
        return "values", None, "one number per sample"
    said = meaning(name)
    if said == "embedding" and vector:
        return "embedding", None, "its name"
    if said == "values":
        return "values", None, "its name"
    if (vector or rank == 3) and said is None and (source := _reconstructed(graph, name)):
        return "values", None, f"it has the sizes of the input {source!r}"
    if vector:
        return _vector(graph, name, trace, axis)
    raw = _is_raw(trace) or _is_capped(graph, trace, classes)
    if trace.maker == "linear" and axis is not None and classes > 1 and raw:
        if rank == 3:
            if said != "classes" and _is_head_of_detector(graph, name, axis):
                return "values", None, "it stands beside another output of the same positions of an image"
            return (
                _scores(graph, name, rank, axis),
                axis,
                f"a linear operator gives {classes} scores a position",
            )
        if _looks_like_map(graph, name, axis):
            return "dense", axis, f"a convolution gives {classes} scores a position"
    return "values", None, f"what {_maker(graph, trace)} gives"


def _reconstructed(graph: OutputGraph, name: str) -> str | None:
    """The input whose sizes an output has, as an autoencoder's; None where anything tells of classes."""
    if graph.labelled or graph.names_classes:
        return None
    sizes = graph.shapes.sizes
    alike = (
        spec.name
        for spec in graph.model.inputs
        if spec.dtype in FLOAT_TYPES and sizes.get(spec.name) == sizes.get(name, ())
    )
    return next(alike, None)


def _vector(graph: OutputGraph, name: str, trace: Trace, axis: int | None) -> tuple[Kind, int | None, str]:
    """A vector per sample: scores of classes, an embedding, or numbers."""
    behind = set(trace.behind)
    width = axis if axis is not None else max(len(graph.shapes.sizes.get(name, (0, 0))) - 1, 0)
    if meaning(name) == "classes":
        return "classes", width, "its name"
    if trace.maker == "linear" and "BatchNormalization" in behind:
        return "embedding", None, "a normalisation behind the last linear operator"
    if trace.maker == "linear" and _is_raw(trace) and trace.axis is not None:
        return "classes", trace.axis, "a linear operator gives a score per class"
    if graph.labelled and trace.maker in ("linear", "other", "pooled"):
        return "classes", width, "the data has a class per sample"
    if graph.names_classes and trace.maker == "linear":
        return "classes", width, "the file's metadata lists classes"
    wide = graph.shapes.sizes.get(name, (0,))[-1] >= _WIDE
    if trace.maker == "linear" and "Tanh" in behind and wide:
        return "embedding", None, "a bounded vector, as of a pooler"
    if trace.maker in ("normalised", "pooled"):
        return "embedding", None, f"{_maker(graph, trace)} gives a vector per sample"
    return "values", None, f"what {_maker(graph, trace)} gives"


def _scores(graph: OutputGraph, name: str, rank: int, axis: int) -> Kind:
    """The kind of class scores by the number of axes."""
    if rank <= 2:
        return "classes"
    if rank > 3:
        return "dense"
    vocabulary = decoder_vocabulary(graph.model)
    sizes = graph.shapes.sizes.get(name, ())
    return "next-token" if vocabulary and sizes[axis : axis + 1] == (vocabulary,) else "tokens"


def _is_raw(trace: Trace) -> bool:
    """Whether scores come as they are: an activation function makes numbers of them."""
    return set(trace.behind).isdisjoint(ops.ACTIVATION - {"Erf"}) or set(trace.behind) & ops.ACTIVATION == {
        "Clip"
    }


def _is_capped(graph: OutputGraph, trace: Trace, classes: int) -> bool:
    """Whether scores of a decoder's tokens bend towards a limit, as Gemma's, which keeps their order."""
    functions = [kind for kind in trace.behind if kind in ops.ACTIVATION]
    scaled = "Mul" in trace.behind[: trace.behind.index("Tanh")] if functions == ["Tanh"] else False
    return scaled and decoder_vocabulary(graph.model) == classes


def _is_head_of_detector(graph: OutputGraph, name: str, axis: int) -> bool:
    """Whether another output tells of the same positions of an image: scores beside boxes, unnamed."""
    sizes, images = graph.shapes.sizes, [graph.shapes.sizes.get(spec.name, ()) for spec in graph.model.inputs]
    if all(len(shape) < 4 for shape in images):
        return False
    positions = sizes[name][3 - axis]
    others = (sizes.get(spec.name, ()) for spec in graph.model.outputs if spec.name != name)
    return any(len(shape) == 3 and positions in shape[1:] for shape in others)


def _looks_like_map(graph: OutputGraph, name: str, axis: int) -> bool:
    """Whether a map of channels is one of class scores: about as fine as the image, and no image itself."""
    if graph.strided:
        return False
    sizes = graph.shapes.sizes.get(name, ())
    inputs = [graph.shapes.sizes.get(spec.name, ()) for spec in graph.model.inputs]
    images = [shape for shape in inputs if len(shape) == len(sizes)]
    own = extent(sizes, axis)
    if sizes[axis] <= _IMAGE and not graph.labelled and not graph.names_classes:
        vectors = bool(inputs) and all(len(shape) <= 2 for shape in inputs)
        # The channels of an input may be its second axis or its last one.
        finest = [max(extent(shape, 1), extent(shape, len(shape) - 1)) for shape in images]
        if vectors or (finest and max(finest) < own):
            return False  # an image that is enlarged, or made of latent values
    for shape in images:
        channels = {shape[1], shape[-1]}
        if sizes[axis] in channels and own == extent(shape, 1 if shape[1] == sizes[axis] else len(shape) - 1):
            return False  # an image becomes an image of as many channels
        if extent(shape, axis) > own * _COARSEST ** (len(sizes) - 2):
            return False
    return True


def extent(shape: Shape, channel: int) -> int:
    """Number of positions of [N, C, H, W] or [N, H, W, C]."""
    count = 1
    for k, size in enumerate(shape[1:], start=1):
        count *= 1 if k == channel else size
    return count


def rank_of(graph: OutputGraph, spec: TensorSpec) -> int | None:
    """Number of axes of an output; None if unknown."""
    sizes = graph.shapes.sizes.get(spec.name)
    if sizes is not None:
        return len(sizes)
    return None if spec.shape is None else len(spec.shape)


def _open_width(graph: OutputGraph, name: str) -> bool:
    """Whether the last axis is of an open size, 1 only in what was run."""
    spec = next((spec for spec in graph.model.outputs if spec.name == name), None)
    return bool(spec and spec.shape and isinstance(spec.shape[-1], str))


def _dtype(graph: OutputGraph, name: str) -> int:
    spec = next((spec.dtype for spec in graph.model.outputs if spec.name == name), 0)
    return graph.shapes.dtypes.get(name) or spec or onnx.TensorProto.FLOAT


def _quantised(graph: OutputGraph, name: str, trace: Trace) -> bool:
    """Whether integers stand for numbers: results of quantised operators, or the pixels of an image."""
    if not graph.shapes.is_low_bit(name) or trace.maker == "index":
        return False
    node = trace.node
    named = node is not None and "QLinear" in graph.index.nodes[node].op_type
    return named or "QuantizeLinear" in trace.behind or len(graph.shapes.sizes.get(name, ())) == 4


def _maker(graph: OutputGraph, trace: Trace) -> str:
    return "an input" if trace.node is None else ops.qualified(graph.index.nodes[trace.node])

"""Find out what each output of a model is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import Model, TensorSpec
from redtest_onnx.graph.shapes import FLOAT_TYPES, Shape, Shapes
from redtest_onnx.graph.signature import state_inputs
from redtest_onnx.runtime.outputs.kinds import (
    SCORES,
    JudgedTensor,
    Kind,
    ModelOutput,
    OutputKind,
    check_output_kinds,
)
from redtest_onnx.runtime.outputs.rows import DataDependentPart, data_dependent_part
from redtest_onnx.runtime.outputs.text import decoder_vocabulary, position_mask
from redtest_onnx.runtime.outputs.trace import Trace, trace_output

_CLASS_WORDS = re.compile(r"(logit|prob|score|class|cls|softmax|label|categor|vocab)", re.IGNORECASE)
_EMBEDDING_WORDS = re.compile(r"(embed|feat|vector|pooled|pooler|descriptor|representation)", re.IGNORECASE)
_VALUE_WORDS = re.compile(
    r"(box|coord|landmark|kps|keypoint|point|regress|depth|mask|heatmap|flow|pose|angle|offset|variable|state"
    r"|hidden|mel(_|$)|audio|wave|sound|image|dist|loc(_|$)|reconstruct|denois|recon|value|noise)",
    re.IGNORECASE,
)
_CACHE_WORDS = re.compile(r"(^|[._/])(present|past|cache)|key_values|kv_cache", re.IGNORECASE)
_CLASS_METADATA = re.compile(r"^(names|classes|class_names|labels|id2label|categories)$", re.IGNORECASE)
_MOST_PARTS = 8
_WIDE = 64  # entries of a vector that are more than a handful of numbers
_COARSEST = 8  # maps of scores are at most so many times smaller than the image


@dataclass(frozen=True)
class _Graph:
    """What the finding looks at."""

    model: Model
    index: GraphIndex
    shapes: Shapes
    sample_axes: Mapping[str, int]
    labelled: bool

    @property
    def opset(self) -> int:
        return self.model.opsets.get("ai.onnx", 17)

    @property
    def names_classes(self) -> bool:
        """Whether the file's metadata lists classes."""
        return any(_CLASS_METADATA.match(entry.key) for entry in self.model.proto.metadata_props)

    @property
    def strided(self) -> bool:
        """Whether the file's metadata tells strides of heads, as detectors' does."""
        return any(entry.key == "stride" for entry in self.model.proto.metadata_props)


def find_outputs(
    model: Model,
    index: GraphIndex,
    shapes: Shapes,
    sample_axes: Mapping[str, int],
    *,
    kinds: Mapping[str, OutputKind] | None = None,
    labelled: bool = False,
) -> tuple[ModelOutput, ...]:
    """Tell for each output what it holds and how two models are compared there.

    Args:
        model: the model, with its branches inlined where they can be.
        index: of its graph.
        shapes: sizes of its tensors for one sample.
        sample_axes: the axis of the samples per tensor; missing where no axis grows with their number.
        kinds: what the user says of outputs; it goes before what is found.
        labelled: whether the data has a class per sample; it decides where the graph does not.

    Raises:
        InputError: the user names an output or an axis that is not there.
    """
    graph = _Graph(model, index, shapes, sample_axes, labelled)
    ranks = {spec.name: _rank(graph, spec) for spec in model.outputs}
    check_output_kinds(kinds or {}, ranks)
    found = [_output(graph, spec, (kinds or {}).get(spec.name)) for spec in model.outputs]
    found = _siblings(graph, found, kinds or {})
    others = any(output.steers for output in found if not _is_cache(model, output.name))
    return tuple(
        replace(output, steers=False, note="a cache: it follows the layers in front of it")
        if others and _is_cache(model, output.name) and output.name not in (kinds or {})
        else output
        for output in found
    )


def _output(graph: _Graph, spec: TensorSpec, said: OutputKind | None) -> ModelOutput:
    name, index = spec.name, graph.index
    rank = _rank(graph, spec)
    if said is not None and said.kind != "detections":
        axis = said.axis
        if axis is None and said.kind in SCORES:
            axis = _usual_axis(graph, name, said.kind, rank or 2)
        if axis is not None:
            axis %= rank or axis + 1
        tensor = _judged(graph, name, said.kind, axis)
        steers = said.kind != "ignore"
        return ModelOutput(name, said.kind, axis, "the user says so", (tensor,), steers)
    if name not in index.activations:
        return ModelOutput(
            name,
            "ignore",
            None,
            "no weights act on it",
            (),
            steers=False,
            note="not judged: it does not depend on the layers",
        )
    part = data_dependent_part(index, graph.shapes, name)
    if part is not None:
        return _in_front(graph, name, part)
    if rank is None or spec.dtype == 0:
        return _container(graph, name)
    kind, axis, why = _kind(graph, name, rank)
    if kind == "values" and not _is_cache(graph.model, name) and (parts := _columns(graph, name, rank)):
        return ModelOutput(name, "values", None, "parts of different kinds side by side", parts)
    return ModelOutput(name, kind, axis, why, (_judged(graph, name, kind, axis),))


def _kind(graph: _Graph, name: str, rank: int) -> tuple[Kind, int | None, str]:
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
    if trace.maker == "unit-length" and rank == 2:
        return "embedding", None, "vectors of unit length"
    if trace.maker == "index":
        return "values", None, "values that are picked"
    if rank < 2 or (rank == 2 and sizes[-1:] == (1,) and not _open_width(graph, name)):
        return "values", None, "one number per sample"
    if _EMBEDDING_WORDS.search(name) and rank == 2 and not _CLASS_WORDS.search(name):
        return "embedding", None, "its name"
    if _VALUE_WORDS.search(name) and not _CLASS_WORDS.search(name):
        return "values", None, "its name"
    if rank == 2:
        return _vector(graph, name, trace, axis)
    if trace.maker == "linear" and axis is not None and classes > 1 and _is_raw(trace):
        if rank == 3:
            return _scores(graph, name, rank, axis), axis, f"a linear operator gives {classes} scores a position"
        if _looks_like_map(graph, name, axis):
            return "dense", axis, f"a convolution gives {classes} scores a position"
    return "values", None, f"what {_maker(graph, trace)} gives"


def _vector(graph: _Graph, name: str, trace: Trace, axis: int | None) -> tuple[Kind, int | None, str]:
    """A vector per sample: scores of classes, an embedding, or numbers."""
    behind = set(trace.behind)
    width = axis if axis is not None else 1
    if _CLASS_WORDS.search(name):
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


def _scores(graph: _Graph, name: str, rank: int, axis: int) -> Kind:
    """The kind of class scores by the number of axes."""
    if rank == 2:
        return "classes"
    if rank > 3:
        return "dense"
    vocabulary = decoder_vocabulary(graph.model, graph.index)
    sizes = graph.shapes.sizes.get(name, ())
    return "next-token" if vocabulary and sizes[axis : axis + 1] == (vocabulary,) else "tokens"


def _is_raw(trace: Trace) -> bool:
    """Whether scores come as they are: an activation function makes numbers of them."""
    return set(trace.behind).isdisjoint(ops.ACTIVATION - {"Erf"}) or set(trace.behind) & ops.ACTIVATION == {
        "Clip"
    }


def _looks_like_map(graph: _Graph, name: str, axis: int) -> bool:
    """Whether a map of channels is one of class scores: about as fine as the image, and no image itself."""
    if graph.strided:
        return False
    sizes = graph.shapes.sizes.get(name, ())
    inputs = [graph.shapes.sizes.get(spec.name, ()) for spec in graph.model.inputs]
    images = [shape for shape in inputs if len(shape) == len(sizes)]
    own = _extent(sizes, axis)
    for shape in images:
        channels = {shape[1], shape[-1]}
        if sizes[axis] in channels and own == _extent(shape, 1 if shape[1] == sizes[axis] else len(shape) - 1):
            return False  # an image becomes an image of as many channels
        if _extent(shape, axis) > own * _COARSEST ** (len(sizes) - 2):
            return False
    return True


def _extent(shape: Shape, channel: int) -> int:
    """Number of positions of [N, C, H, W] or [N, H, W, C]."""
    count = 1
    for k, size in enumerate(shape[1:], start=1):
        count *= 1 if k == channel else size
    return count


def _siblings(
    graph: _Graph, found: list[ModelOutput], kinds: Mapping[str, OutputKind]
) -> list[ModelOutput]:
    """Second look: heads of detectors beside one another are numbers, not classes.

    Maps of several sizes are raw heads; a linear output with as many rows as a softmax output are its boxes.
    """
    maps = {o.name: graph.shapes.sizes.get(o.name, ()) for o in found if o.kind == "dense"}
    extents = {_extent(sizes, found_axis(found, name)) for name, sizes in maps.items()}
    sure = [o for o in found if o.why.startswith(("softmax", "log-softmax"))]
    result = []
    for output in found:
        raw = output.why.startswith(("a linear operator", "a convolution")) and output.name not in kinds
        beside = any(
            other.kind == output.kind
            and _positions(graph, other) == _positions(graph, output)
            and other.kind in ("tokens", "dense")
            for other in sure
        )
        if raw and ((output.kind == "dense" and len(extents) > 1) or beside):
            why = "a raw head beside others" if not beside else "numbers beside a softmax over as many rows"
            tensor = _judged(graph, output.name, "values", None)
            output = ModelOutput(output.name, "values", None, why, (tensor,))
        result.append(output)
    return result


def found_axis(found: list[ModelOutput], name: str) -> int:
    """The axis of classes of one of the outputs; 1 where it has none."""
    return next((o.axis for o in found if o.name == name and o.axis is not None), 1)


def _positions(graph: _Graph, output: ModelOutput) -> int:
    sizes = graph.shapes.sizes.get(output.name, ())
    return _extent(sizes, output.axis if output.axis is not None else 1)


def _in_front(graph: _Graph, name: str, part: DataDependentPart) -> ModelOutput:
    """An output whose rows depend on values: the tensors in front of that part stand for it."""
    tensors = []
    for tensor, reader, position in part.front:
        rank = len(graph.shapes.sizes.get(tensor, (0, 0)))
        kind, axis, why = _kind(graph, tensor, rank)
        # Rows of all positions together look like samples: only a softmax tells that they hold classes.
        sure = kind in SCORES and why.startswith(("softmax", "log-softmax"))
        judged = _judged(graph, tensor, kind if sure else "values", axis if sure else None)
        tensors.append(replace(judged, reader=(reader, position)))
    names = ", ".join(tensor for tensor, _, _ in part.front)
    return ModelOutput(
        name,
        "detections",
        None,
        f"{part.name} picks rows by value",
        tuple(tensors),
        sets=True,
        layers_behind=part.layers_behind,
        note=f"compared in front of {part.name}: {names}",
    )


def _container(graph: _Graph, name: str) -> ModelOutput:
    """A list, a table, something that may be missing: tensors inside are compared by what they are."""
    trace = trace_output(graph.index, graph.shapes, name, 2, graph.opset)
    if "ai.onnx.ml:ZipMap" in trace.behind:
        return ModelOutput(name, "classes", 1, "a table of scores", (_judged(graph, name, "classes", 1),))
    node = graph.index.nodes[graph.index.producer[name]] if name in graph.index.producer else None
    if node is not None and node.op_type == "Optional" and node.input:
        inside = node.input[0]
        kind, axis, why = _kind(graph, inside, len(graph.shapes.sizes.get(inside, (0, 0))))
        judged = replace(_judged(graph, inside, kind, axis), name=name)
        return ModelOutput(name, kind, axis, why, (judged,))
    return ModelOutput(
        name, "elements", None, "a list or something that may be missing", (_judged(graph, name, "elements"),)
    )


def _columns(graph: _Graph, name: str, rank: int) -> tuple[JudgedTensor, ...]:
    """Parts that a concatenation puts side by side, if they are of different scales: boxes beside scores."""
    trace = trace_output(graph.index, graph.shapes, name, rank, graph.opset)
    if trace.maker != "other" or trace.node is None:
        return ()
    node = graph.index.nodes[trace.node]
    if node.op_type != "Concat" or not 2 <= len(node.input) <= _MOST_PARTS:
        return ()
    made = graph.shapes.sizes.get(node.output[0], ())
    own = int(str(ops.attribute(node, "axis", 0))) % max(len(made), 1)
    axis = _followed(graph, name, rank, node.output[0], own)
    inputs = [graph.shapes.sizes.get(tensor, ()) for tensor in node.input]
    if axis is None or axis == graph.sample_axes.get(name) or any(len(s) != len(made) for s in inputs):
        return ()
    makers = {_ending(graph, tensor) for tensor in node.input if tensor in graph.index.activations}
    if len(makers) < 2:
        return ()  # of one kind: levels of a pyramid, directions
    parts, start = [], 0
    for tensor, sizes in zip(node.input, inputs, strict=True):
        stop = start + sizes[own]
        part = _judged(graph, name, "values", None)
        if tensor in graph.index.activations:
            parts.append(replace(part, columns=(start, stop), column_axis=axis))
        start = stop
    return tuple(parts)


def _ending(graph: _Graph, tensor: str) -> str:
    """What ends in a tensor, as far as that tells its scale."""
    rank = len(graph.shapes.sizes.get(tensor, (0, 0)))
    trace = trace_output(graph.index, graph.shapes, tensor, rank, graph.opset)
    functions = [kind for kind in trace.behind if kind in ops.ACTIVATION]
    return f"{trace.maker}/{functions[0] if functions else ''}"


def _followed(graph: _Graph, name: str, rank: int, tensor: str, axis: int) -> int | None:
    """The output's axis that is `axis` of a tensor in front of it."""
    current, axes = name, list(range(rank))
    while current != tensor:
        node = graph.index.nodes[graph.index.producer[current]]
        if node.op_type == "Transpose":
            perm = ops.attribute(node, "perm")
            order = list(perm) if isinstance(perm, list | tuple) else list(reversed(range(rank)))
            axes = [int(order[a]) for a in axes]
        elif node.op_type not in ("Identity", "Cast"):
            return None
        current = node.input[0]
    return axes.index(axis) if axis in axes else None


def _judged(graph: _Graph, name: str, kind: Kind, axis: int | None = None) -> JudgedTensor:
    sizes = graph.shapes.sizes.get(name, ())
    trace = trace_output(graph.index, graph.shapes, name, len(sizes) or 2, graph.opset)
    return JudgedTensor(
        name,
        kind,
        axis,
        graph.sample_axes.get(name, 0 if not sizes else None),
        position_mask(graph.model, graph.index, graph.shapes, name, axis),
        "probabilities" if trace.maker in ("softmax", "classifier") else "logits",
    )


def _usual_axis(graph: _Graph, name: str, kind: Kind, rank: int) -> int:
    """The axis of classes where the user names only the kind: followed through the graph, or the usual one."""
    trace = trace_output(graph.index, graph.shapes, name, rank, graph.opset)
    if trace.axis is not None and trace.maker in ("softmax", "log-softmax", "linear", "classifier"):
        return trace.axis
    return 1 if kind in ("classes", "dense") else rank - 1


def _rank(graph: _Graph, spec: TensorSpec) -> int | None:
    sizes = graph.shapes.sizes.get(spec.name)
    if sizes is not None:
        return len(sizes)
    return None if spec.shape is None else len(spec.shape)


def _open_width(graph: _Graph, name: str) -> bool:
    """Whether the last axis is of an open size, 1 only in what was run."""
    spec = next((spec for spec in graph.model.outputs if spec.name == name), None)
    return bool(spec and spec.shape and isinstance(spec.shape[-1], str))


def _dtype(graph: _Graph, name: str) -> int:
    spec = next((spec.dtype for spec in graph.model.outputs if spec.name == name), 0)
    return graph.shapes.dtypes.get(name) or spec or onnx.TensorProto.FLOAT


def _quantised(graph: _Graph, name: str, trace: Trace) -> bool:
    """Whether integers stand for numbers: results of quantised operators, or the pixels of an image."""
    if not graph.shapes.is_low_bit(name) or trace.maker == "index":
        return False
    node = trace.node
    named = node is not None and "QLinear" in graph.index.nodes[node].op_type
    return named or "QuantizeLinear" in trace.behind or len(graph.shapes.sizes.get(name, ())) == 4


def _is_cache(model: Model, name: str) -> bool:
    """Whether an output hands a cache on to the next run."""
    return bool(_CACHE_WORDS.search(name)) and bool(state_inputs(model))


def _maker(graph: _Graph, trace: Trace) -> str:
    return "an input" if trace.node is None else ops.qualified(graph.index.nodes[trace.node])

"""Shapes of all tensors of a graph and its branches for given input sizes, by ONNX shape inference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.element_types import add_element_types
from redtest_onnx.graph.model import Model, subgraphs
from redtest_onnx.graph.reduced import without_weights
from redtest_onnx.graph.runtime_operators import default_opset

Shape = tuple[int, ...]
Symbols = tuple[int | str, ...]

FLOAT_TYPES = frozenset(
    code for name, code in onnx.TensorProto.DataType.items() if name.startswith(("FLOAT", "BFLOAT", "DOUBLE"))
)

LOW_BIT_TYPES = frozenset(
    code
    for name, code in onnx.TensorProto.DataType.items()
    if name.removeprefix("U").startswith(("INT8", "INT4", "INT2"))
)

_FAILURES = (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError, RuntimeError)

# Larger constants can't be shapes or axes: inference needs their dimensions only.
_LARGEST_SHAPE_CONSTANT = 1024

_KEPT = 4  # sets of sizes per model


@dataclass(frozen=True)
class Shapes:
    """Sizes and ONNX element types of tensors for one set of input sizes; tensors not found are missing.

    `sizes` holds fully known shapes only. `symbols` holds what can be told without concrete inputs: sizes and
    names of open dimensions, where all of them are known; a runtime plans its memory by them. `samples` tells
    how many samples the sizes are for, where a model takes no fewer.
    """

    sizes: Mapping[str, Shape] = field(default_factory=dict)
    dtypes: Mapping[str, int] = field(default_factory=dict)
    symbols: Mapping[str, Symbols] = field(default_factory=dict)
    samples: int = 1

    def is_float(self, name: str) -> bool:
        """Whether a tensor holds floating-point values; true where its type is unknown."""
        return self.dtypes.get(name, onnx.TensorProto.FLOAT) in FLOAT_TYPES

    def is_low_bit(self, name: str) -> bool:
        """Whether a tensor holds quantised values, integers of eight bits or fewer."""
        return self.dtypes.get(name) in LOW_BIT_TYPES

    def updated(self, sizes: Mapping[str, Shape]) -> Shapes:
        """These shapes with others, seen in a run, in their place."""
        return Shapes({**self.sizes, **sizes}, self.dtypes, self.symbols, self.samples)


def infer_shapes(model: Model, inputs: Mapping[str, Shape]) -> Shapes:
    """Infer shapes from the operators; what the file declares is believed only of unknown operators.

    Args:
        model: the model.
        inputs: concrete sizes of the model's inputs.
    """
    kept: dict[object, Shapes] = model.facts.setdefault("shapes", {})
    key = frozenset((name, tuple(shape)) for name, shape in inputs.items())
    if key not in kept:
        if len(kept) >= _KEPT:
            del kept[next(iter(kept))]
        kept[key] = _inferred(model, inputs)
    return kept[key]


def _inferred(model: Model, inputs: Mapping[str, Shape]) -> Shapes:
    try:
        inferred = onnx.shape_inference.infer_shapes(_skeleton(model, inputs), data_prop=True)
    except _FAILURES:
        return Shapes(dict(inputs), {spec.name: spec.dtype for spec in model.inputs})
    sizes: dict[str, Shape] = {}
    dtypes: dict[str, int] = {}
    clashing: set[str] = set()  # two branches may call different tensors alike
    for graph in _all_graphs(inferred.graph):
        for info in (*graph.input, *graph.output, *graph.value_info):
            tensor = info.type.tensor_type
            if tensor.elem_type:
                dtypes[info.name] = tensor.elem_type
            if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
                shape = tuple(d.dim_value for d in tensor.shape.dim)
                if any(size < 0 for size in shape):
                    continue  # an input too small for its kernels; ONNX Runtime would refuse it
                if sizes.setdefault(info.name, shape) != shape:
                    clashing.add(info.name)
        for stored in graph.initializer:
            sizes[stored.name], dtypes[stored.name] = tuple(stored.dims), stored.data_type
    for name in clashing:
        del sizes[name]
    for graph in _all_graphs(model.graph):
        add_element_types(graph.node, default_opset(model.proto), dtypes)
    return Shapes(sizes, dtypes, _symbolic(model))


def _all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for child in subgraphs(graph.node):
        yield from _all_graphs(child)


def declared_shapes(model: Model) -> dict[str, tuple[int | None, ...]]:
    """What can be told of the dimensions of tensors for every input the signature allows; None is open."""
    try:
        inferred = onnx.shape_inference.infer_shapes(_skeleton(model, {}), data_prop=True)
    except _FAILURES:
        return {}
    found: dict[str, tuple[int | None, ...]] = {}
    for info in (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info):
        tensor = info.type.tensor_type
        if tensor.HasField("shape"):
            found[info.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim
            )
    return found


def _symbolic(model: Model) -> dict[str, Symbols]:
    """Shapes with the names of open dimensions, as far as declarations and operators tell them."""
    if "symbols" not in model.facts:
        model.facts["symbols"] = _found_symbols(model)
    found: dict[str, Symbols] = model.facts["symbols"]
    return found


def _found_symbols(model: Model) -> dict[str, Symbols]:
    skeleton = _skeleton(model, {})
    skeleton.graph.value_info.extend(model.graph.value_info)
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except _FAILURES:
        return {}
    found: dict[str, Symbols] = {}
    for info in inferred.graph.value_info:
        tensor = info.type.tensor_type
        dims = tuple(
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim
        )
        if tensor.HasField("shape") and "" not in dims:
            found[info.name] = dims
    return found


def _skeleton(model: Model, inputs: Mapping[str, Shape]) -> onnx.ModelProto:
    """The model without its large weights and without declared inner shapes, inputs at the given sizes."""
    source = model.graph
    fed = (
        onnx.helper.make_tensor_value_info(spec.name, spec.dtype, inputs.get(spec.name, spec.shape))
        for spec in model.inputs
    )
    skeleton = without_weights(model, fed, _LARGEST_SHAPE_CONSTANT)
    graph = skeleton.graph
    for spec in model.outputs:
        graph.output.append(onnx.helper.make_tensor_value_info(spec.name, spec.dtype, None))
    unknown = {name for node in source.node if ops.is_unknown(node) for name in node.output}
    graph.value_info.extend(info for info in source.value_info if info.name in unknown)
    return skeleton

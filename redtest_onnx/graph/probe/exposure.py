"""Inner tensors as outputs of a model that anybody can run: declared, of any type, behind its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx
from onnx import helper

from redtest_onnx.errors import InputError
from redtest_onnx.graph.index import GraphIndex, index_of
from redtest_onnx.graph.model import Dim, Model, TensorSpec
from redtest_onnx.graph.quantisation import scale_operands

ALL = "all"
SUFFIX = "_dequantized"
_OLDEST_DEQUANTIZE = 10


@dataclass(frozen=True)
class UnexposedTensor:
    """A tensor that does not become an output, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Selection:
    """Which tensors become outputs.

    Attributes:
        tensors: their names, in the order in which the graph makes them.
        others: tensors that were looked at and stay inside.
    """

    tensors: tuple[str, ...]
    others: tuple[UnexposedTensor, ...]


def select_tensors(index: GraphIndex, patterns: Sequence[str]) -> Selection:
    """The tensors that patterns name.

    Args:
        index: the graph.
        patterns: globs over names of tensors; "all" stands for every tensor whose values depend on the
            values of the inputs. Others are listed with the reason, unless a glob names them.

    Raises:
        InputError: a pattern names no tensor that the graph makes.
    """
    outputs = set(index.outputs)
    inner = [name for node in index.nodes for name in node.output if name and name not in outputs]
    chosen: set[str] = set()
    for pattern in patterns:
        if pattern == ALL:
            chosen.update(name for name in inner if name in index.input_dependent)
            continue
        named = [name for name in inner if fnmatchcase(name, pattern)]
        if not named and not any(fnmatchcase(name, pattern) for name in outputs):
            raise InputError(
                f"no tensor is called {pattern!r}",
                hint="* stands for any part of a name; `inspect` with @layers=all lists the activations",
                where="tensors",
            )
        chosen.update(named)
    others = [
        UnexposedTensor(name, _reason(index, name))
        for name in inner
        if name not in chosen and ALL in patterns
    ]
    return Selection(tuple(name for name in inner if name in chosen), tuple(others))


def add_outputs(model: Model, specs: Iterable[TensorSpec], *, dequantize: bool = False) -> Model:
    """A copy of a model with further tensors as outputs, behind its own.

    Requires: each tensor is made in the main graph and is no output yet. Ensures: the nodes, the weights and
    the original outputs are what they were; every new output has a declared type.

    Args:
        model: the model.
        specs: the tensors with their types and shapes.
        dequantize: give quantised tensors whose scale is known as float32, named `<tensor>_dequantized`.

    Raises:
        InputError: a type is unknown.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph, index = proto.graph, index_of(model)
    names = set()
    for spec in specs:
        if not spec.dtype:
            raise InputError(
                f"the type of tensor {spec.name!r} is unknown, so that it can't be declared as an output",
                where=model.label,
                hint="leave it out of @tensors, or run the model once with data",
            )
        operands = scale_operands(index, spec.name) if dequantize and _can_dequantize(model) else None
        if operands is not None:
            output = spec.name + SUFFIX
            scale, zero, axis = operands
            inputs = [spec.name, scale, *([zero] if zero else [])]
            node = helper.make_node("DequantizeLinear", inputs, [output], name=output)
            if axis is not None:
                node.attribute.append(helper.make_attribute("axis", axis))
            graph.node.append(node)
            spec = TensorSpec(output, onnx.TensorProto.FLOAT, spec.shape)
        names.add(spec.name)
        graph.output.append(_value_info(spec))
    kept = [info for info in graph.value_info if info.name not in names]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    return model.edited(proto)


def declared_specs(model: Model, names: Iterable[str]) -> dict[str, TensorSpec]:
    """Types and dimensions that ONNX shape inference tells of tensors; those it doesn't know are missing."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.proto)
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):
        inferred = skeleton
    wanted = set(names)
    infos = (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info)
    return {info.name: TensorSpec.of(info) for info in infos if info.name in wanted}


def merge_specs(names: Iterable[str], *sources: Mapping[str, TensorSpec]) -> list[TensorSpec]:
    """For each tensor what the sources know, the first one that does; type 0 where none does."""
    merged = []
    for name in names:
        known = [source[name] for source in sources if name in source]
        dtype = next((spec.dtype for spec in known if spec.dtype), 0)
        shape: tuple[Dim, ...] | None = next((spec.shape for spec in known if spec.shape is not None), None)
        merged.append(TensorSpec(name, dtype, shape))
    return merged


def _value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    """As `make_tensor_value_info`, with dimensions that nothing is known of left open."""
    return helper.make_tensor_value_info(spec.name, spec.dtype, spec.shape)


def _can_dequantize(model: Model) -> bool:
    return model.opsets.get("ai.onnx", 0) >= _OLDEST_DEQUANTIZE


def _reason(index: GraphIndex, name: str) -> str:
    """Why a tensor is no activation."""
    pending, seen = [name], set()
    while pending:
        tensor = pending.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        producer = index.producer.get(tensor)
        if producer is not None:
            pending.extend(index.reads[producer])
        elif tensor not in index.initializers:
            return "shape arithmetic: it depends on the sizes of the inputs only"
    return "constant: it does not depend on the inputs"

"""Values of inner tensors: a model that hands them out, and its runs over a data set, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.arrays import Indices
from redtest_onnx.data.batching import batches
from redtest_onnx.data.dataset import Dataset
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.model import FLOAT, Model, TensorSpec, dtype_name, element_bits
from redtest_onnx.graph.probe.exposure import (
    UnexposedTensor,
    add_outputs,
    declared_specs,
    merge_specs,
    select_tensors,
)
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

_MOST_BYTES = 1 << 27
"""Of the values of one run: what stays in memory at a time."""
_MOST_SAMPLES = 64
SYNTHETIC = 16
"""Samples that are run where the user gave none."""


@dataclass(frozen=True)
class ExposedTensor:
    """A tensor that became an output.

    Attributes:
        name: in the original graph.
        output: name of the output; another one if it was dequantised.
        dtype: ONNX element type of the output.
        shape: declared dimensions; None where the rank is unknown.
        sample_axis: axis of the samples; None where no axis grows with their number, `WHOLE` where all of the
            tensor belongs to the one sample of a run.
    """

    name: str
    output: str
    dtype: int
    shape: tuple[int | str | None, ...] | None
    sample_axis: int | None


@dataclass(frozen=True, eq=False)
class ExposedModel:
    """A model with inner tensors as outputs.

    Attributes:
        model: the model, not saved yet.
        tensors: the new outputs.
        others: tensors that stay inside, with the reason.
        branches: branches of If that were opened because of what is fed, in words; the model computes only
            these.
    """

    model: Model
    tensors: tuple[ExposedTensor, ...]
    others: tuple[UnexposedTensor, ...]
    branches: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ActivationBatch:
    """Values of the exposed tensors for some samples.

    Attributes:
        indices: which samples.
        values: by name of the output; the samples are the first axis, [n, ...], of tensors that have an axis
            of samples, and the array is as the model made it otherwise.
    """

    indices: Indices
    values: dict[str, npt.NDArray[Any]]


def expose_tensors(
    bench: Workbench, patterns: Sequence[str] = ("all",), *, dequantize: bool = False
) -> ExposedModel:
    """A model whose inner tensors are outputs, with their types and shapes declared.

    Args:
        bench: the model with samples; what they hold decides which branches are taken, and where sizes can't
            be inferred the model runs on one.
        patterns: globs over names of tensors, or "all".
        dequantize: give quantised tensors whose scale is known as float32.

    Raises:
        InputError: a pattern names no tensor, or ONNX Runtime does not know a tensor's type either.
    """
    view = bench.view
    current = view.model if view.choices else bench.model
    selection = select_tensors(index_of(current), patterns)
    declared = declared_specs(current, selection.tensors)
    known = merge_specs(selection.tensors, declared)
    if open_ := [spec for spec in known if not spec.dtype or spec.shape is None]:
        known = merge_specs(selection.tensors, declared, _seen_specs(bench.successor(current), open_))
    tensors = [spec for spec in known if spec.dtype]
    others = [
        UnexposedTensor(spec.name, "not a tensor (a sequence, a map or an optional value)")
        for spec in known
        if not spec.dtype
    ]
    exposed = add_outputs(current, tensors, dequantize=dequantize)
    made = exposed.outputs[len(current.outputs) :]
    return ExposedModel(
        model=exposed,
        tensors=tuple(
            ExposedTensor(spec.name, out.name, out.dtype, out.shape, bench.resolved.batch_axes.get(spec.name))
            for spec, out in zip(tensors, made, strict=True)
        ),
        others=(*selection.others, *others),
        branches=tuple(map(str, view.choices)),
    )


def iterate_activations(
    bench: Workbench, exposed: ExposedModel, indices: Indices
) -> Iterator[ActivationBatch]:
    """Run an exposed model over samples; at most some 128 MiB of values are in memory at a time.

    Args:
        bench: of the original, with the samples.
        exposed: the model with its inner tensors as outputs.
        indices: which samples, in which order.

    Raises:
        InputError: the model doesn't run on the data.
    """
    readable, names = _with_readable_types(exposed)
    session = Session(readable, bench.options, level="basic")
    data, fixed = bench.data, bench.fixed_batch
    size = fixed or _batch_size(data, session, list(names.values()))
    for chosen, count in batches(indices, size, fixed=fixed is not None):
        found = session.run(data.inputs(chosen), list(names.values()))
        values = {
            tensor.output: _samples_first(found[names[tensor.output]], tensor.sample_axis, len(chosen), count)
            for tensor in exposed.tensors
        }
        yield ActivationBatch(chosen[:count], values)


def _samples_first(array: npt.NDArray[Any], axis: int | None, samples: int, count: int) -> npt.NDArray[Any]:
    if axis is not None and axis < 0:
        return array[None]  # all of it belongs to the one sample of the run
    if axis is None or array.shape[axis] % samples:
        return array
    moved = np.moveaxis(array, axis, 0)
    each = len(moved) // samples  # heads folded into the axis of samples, and the like
    return moved[: count * each] if each == 1 else moved.reshape(samples, each, *moved.shape[1:])[:count]


def _batch_size(data: Dataset, session: Session, outputs: Sequence[str]) -> int:
    """How many samples' values fit the bound, from a run of one."""
    values = session.run(data.inputs(np.zeros(1, np.int64)), outputs)
    each = max(sum(int(getattr(value, "nbytes", 0)) for value in values.values()), 1)
    return max(1, min(_MOST_SAMPLES, _MOST_BYTES // each))


def _seen_specs(bench: Workbench, specs: Sequence[TensorSpec]) -> dict[str, TensorSpec]:
    """What ONNX Runtime infers of tensors when it loads them as outputs, and the ranks that a run shows."""
    proto = onnx.ModelProto()
    proto.CopyFrom(bench.model.proto)
    proto.graph.output.extend(onnx.ValueInfoProto(name=spec.name) for spec in specs)
    session = Session(bench.model.edited(proto), bench.options, level="none")
    loaded = session.output_specs
    names = [name for name, spec in loaded.items() if spec.dtype and _has_numpy_type(spec.dtype)]
    values = session.run(bench.sample, names) if names else {}
    return {
        name: replace(spec, shape=(None,) * values[name].ndim) if name in values else spec
        for name, spec in loaded.items()
    }


def _with_readable_types(exposed: ExposedModel) -> tuple[Model, dict[str, str]]:
    """The model to run, and what each output is called there: types without arrays leave it as float32."""
    names = {tensor.output: tensor.output for tensor in exposed.tensors}
    odd = [tensor.output for tensor in exposed.tensors if not _has_numpy_type(tensor.dtype)]
    if not odd:
        return exposed.model, names
    proto = onnx.ModelProto()
    proto.CopyFrom(exposed.model.proto)
    for output in odd:
        names[output] = f"{output}/float32"
        cast = onnx.helper.make_node("Cast", [output], [names[output]], name=names[output], to=FLOAT)
        proto.graph.node.append(cast)
        proto.graph.output.append(onnx.helper.make_tensor_value_info(names[output], FLOAT, None))
    return exposed.model.edited(proto), names


def _has_numpy_type(dtype: int) -> bool:
    name = dtype_name(dtype)
    return not name.startswith(("bfloat", "float8")) and element_bits(dtype) != 4

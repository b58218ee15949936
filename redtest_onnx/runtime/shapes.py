"""Sizes of all tensors for one sample: inferred where that works, seen in a run where it doesn't."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

from redtest_onnx.data.dataset import Feeds
from redtest_onnx.errors import InputError
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.macs import sizes_counted
from redtest_onnx.graph.model import FLOAT, Model, element_bits
from redtest_onnx.graph.probe.constants import PREFIX
from redtest_onnx.graph.probe.taps import build_shape_probe, find_batch_axis
from redtest_onnx.graph.shapes import Shape, Shapes, infer_shapes
from redtest_onnx.graph.signature import batch_axes, fixed_batch, plan_inputs, takes_one_sample
from redtest_onnx.runtime.outputs.rows import sized_by_value
from redtest_onnx.runtime.session import RunOptions, Session

log = logging.getLogger(__name__)

WHOLE = -1
"""Stands for the axis of samples where all of a tensor belongs to one sample."""
_LARGEST = 1 << 32  # bytes of one tensor for one sample; stored weights may be larger


@dataclass(frozen=True)
class ResolvedShapes:
    """Sizes of tensors with the smallest batch the model takes, and the axes that hold the samples.

    Attributes:
        batch: number of samples the sizes are for: 1, or the batch size fixed in the model.
        shapes: sizes and types.
        batch_axes: axis of the samples per activation; missing where no axis grows with the batch, and
            `WHOLE` in models that take one sample a run.
    """

    batch: int
    shapes: Shapes
    batch_axes: Mapping[str, int]


def resolve_shapes(model: Model, sample: Callable[[int], Feeds], options: RunOptions) -> ResolvedShapes:
    """Find the sizes of all activations; the model runs only if inference leaves one open.

    Args:
        model: the model.
        sample: gives inputs of so many samples.
        options: device and threads.

    Raises:
        InputError: the model doesn't run on the data.
    """
    batch = fixed_batch(model) or 1
    small = _sizes(model, sample(batch), options)
    if takes_one_sample(model):
        # What convolutions see has an axis of one sample in front; the rest is all one sample's.
        axes = {
            name: 0 if shape[0] == 1 and len(shape) > 1 else WHOLE
            for name, shape in small.sizes.items()
            if shape
        }
        return ResolvedShapes(1, small, axes)
    if fixed_batch(model) is not None:
        # Nothing can grow: the samples are where inputs have them, in front as a rule.
        axes = {name: 0 for name, shape in small.sizes.items() if shape and shape[0] % batch == 0}
        if any(batch_axes(model).values()):
            axes.update(
                _batch_axes(infer_shapes(model, _inputs(model, 1)), infer_shapes(model, _inputs(model, 2)))
            )
    else:
        axes = _batch_axes(small, _sizes(model, sample(2), options))
    # Twice as many rows for twice as many samples is an accident where values decide on their number.
    by_value = _sized_by_value(model, small)
    small = replace(small, samples=batch)
    return ResolvedShapes(batch, small, {name: axis for name, axis in axes.items() if name not in by_value})


def _sized_by_value(model: Model, shapes: Shapes) -> frozenset[str]:
    """Tensors whose sizes were seen in one run, and may be others in the next."""
    reached = sized_by_value(index_of(model))
    if not reached:
        return frozenset()
    inputs = {spec.name: shapes.sizes[spec.name] for spec in model.inputs if spec.name in shapes.sizes}
    return reached - infer_shapes(model, inputs).sizes.keys()


def _runs_nowhere(model: Model) -> bool:
    """Whether the graph holds operators that ONNX Runtime can't know."""
    local = {(function.domain, function.name) for function in model.proto.functions}
    strange = [n for n in model.graph.node if ops.is_unknown(n) and (n.domain, n.op_type) not in local]
    if strange:
        names = ", ".join(sorted({ops.qualified(node) for node in strange}))
        log.warning(
            "%s can't be run: no operator set here defines %s; sizes behind it may be missing",
            model.label,
            names,
        )
    return bool(strange)


def _check_sizes(model: Model, shapes: Shapes) -> None:
    """Refuse what no machine should be asked to run: an operator that blows its input up beyond reason."""
    for name, shape in shapes.sizes.items():
        size = prod(shape) * element_bits(shapes.dtypes.get(name, FLOAT)) // 8
        if size > _LARGEST and name not in model.initializers:
            raise InputError(
                f"its tensor {name!r} of sizes {list(shape)} would take {size / 2**30:.1f} GiB",
                where=model.label,
                hint="check the operator that makes it, or give smaller inputs with @shapes",
            )


def _batch_axes(small: Shapes, large: Shapes) -> dict[str, int]:
    """The axis of each tensor that is twice as long in the second shapes."""
    found = {
        name: find_batch_axis(shape, large.sizes.get(name, ()), 2) for name, shape in small.sizes.items()
    }
    return {name: axis for name, axis in found.items() if axis is not None}


def _inputs(model: Model, times: int) -> dict[str, Shape]:
    """Sizes of the inputs for so many times the batch that the model fixes."""
    plans = plan_inputs(model, 1)
    return {
        plan.name: tuple(size * times if k == plan.batch_axis else size for k, size in enumerate(plan.shape))
        for plan in plans
    }


def _sizes(model: Model, feeds: Feeds, options: RunOptions) -> Shapes:
    index = index_of(model)
    shapes = infer_shapes(model, {name: array.shape for name, array in model.own_feeds(feeds).items()})
    _check_sizes(model, shapes)
    # Queries that are stored work on one another, too: their values depend on no input, only their number.
    wanted = index.activations | index.input_dependent | sizes_counted(index)
    unknown = [
        name
        for name, node in index.producer.items()
        if name in wanted
        and name not in shapes.sizes
        and ops.qualified(index.nodes[node]) not in ops.NO_TENSOR
    ]
    if not unknown or _runs_nowhere(model):
        return shapes
    activations = [name for name in unknown if name in index.activations]
    try:
        return shapes.updated(_seen_sizes(model, unknown, feeds, options))
    except InputError:
        if len(activations) == len(unknown):
            raise
    # Lists and optionals, which have no sizes, may be among the others.
    return shapes.updated(_seen_sizes(model, activations, feeds, options)) if activations else shapes


def _seen_sizes(model: Model, names: list[str], feeds: Feeds, options: RunOptions) -> dict[str, Shape]:
    """Sizes of tensors in a run."""
    seen = Session(build_shape_probe(model, names), options, level="basic").run(feeds)
    return {name.removeprefix(PREFIX): tuple(map(int, dims)) for name, dims in seen.items()}

"""Sizes of all tensors for one sample: inferred where that works, seen in a run where it doesn't."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.probe import build_shape_probe, find_batch_axis
from redtest_onnx.graph.reduction import PREFIX
from redtest_onnx.graph.shapes import Shape, Shapes, infer_shapes
from redtest_onnx.graph.signature import fixed_batch
from redtest_onnx.runtime.batching import first
from redtest_onnx.runtime.data import Dataset
from redtest_onnx.runtime.session import RunOptions, Session


@dataclass(frozen=True)
class SeenShapes:
    """Sizes of tensors with the smallest batch the model takes, and the axes that hold the samples.

    Attributes:
        batch: number of samples the sizes are for: 1, or the batch size fixed in the model.
        shapes: sizes and types.
        batch_axes: axis of the samples per activation; missing where no axis grows with the batch.
    """

    batch: int
    shapes: Shapes
    batch_axes: Mapping[str, int]


def see_shapes(model: Model, index: GraphIndex, data: Dataset, options: RunOptions) -> SeenShapes:
    """Find the sizes of all activations; the model runs only if inference leaves one open.

    Raises:
        InputError: the model doesn't run on the data.
    """
    batch = fixed_batch(model) or 1
    small = _sizes(model, index, data, batch, options)
    if fixed_batch(model) is not None:
        # Nothing can grow: the samples are where inputs have them, in front.
        axes = {name: 0 for name, shape in small.sizes.items() if shape and shape[0] % batch == 0}
        return SeenShapes(batch, small, axes)
    large = _sizes(model, index, data, 2, options)
    axes = {}
    for name, shape in small.sizes.items():
        axis = find_batch_axis(shape, large.sizes.get(name, ()), 2)
        if axis is not None:
            axes[name] = axis
    return SeenShapes(batch, small, axes)


def _sizes(model: Model, index: GraphIndex, data: Dataset, batch: int, options: RunOptions) -> Shapes:
    feeds = data.inputs(first(batch, len(data)))
    shapes = infer_shapes(model, {name: array.shape for name, array in feeds.items()})
    tensors = index.activations.intersection(index.producer)
    unknown = [name for name in index.producer if name in tensors and name not in shapes.sizes]
    if not unknown:
        return shapes
    seen = Session(build_shape_probe(model, unknown), options, level="basic").run(feeds)
    sizes: dict[str, Shape] = {
        name.removeprefix(PREFIX): tuple(map(int, dims)) for name, dims in seen.items()
    }
    return shapes.updated(sizes)

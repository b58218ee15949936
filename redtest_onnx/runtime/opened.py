"""Open what lies inside If, with the values the data holds for inputs that all samples share."""

from __future__ import annotations

from dataclasses import replace

from redtest_onnx.data.batching import leading_indices
from redtest_onnx.data.dataset import Dataset
from redtest_onnx.graph.branches import InlinedModel, inline_branches
from redtest_onnx.graph.cost import Cost, count_parameters, model_cost, parameter_bytes
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import Shapes
from redtest_onnx.graph.signature import batch_axes, fixed_batch
from redtest_onnx.graph.view import with_separate_layers
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.shapes import resolve_shapes


def inline_for_data(model: Model, data: Dataset) -> InlinedModel:
    """The view of a model in which layers are looked for and edited, see `with_separate_layers`.

    Local functions and the branches that it takes for this data are inlined.

    Raises:
        InputError: the data can't be read, or a local function can't be inlined.
    """
    shared = [name for name, axis in batch_axes(model).items() if axis is None]
    if not shared or not any(node.op_type == "If" for node in model.graph.node):
        return with_separate_layers(inline_branches(model))
    feeds = data.inputs(leading_indices(fixed_batch(model) or 1, len(data)))
    return with_separate_layers(inline_branches(model, {name: feeds[name] for name in shared}))


def whole_cost(model: Model, view: Model, shapes: Shapes) -> Cost:
    """What a model stores, and what a run through its opened branches costs.

    Args:
        model: the model.
        view: the same with its branches opened.
        shapes: sizes of the view's tensors for one sample.
    """
    cost, index = model_cost(GraphIndex(view.graph), shapes), GraphIndex(model.graph)
    return replace(cost, parameters=count_parameters(index), parameter_bytes=parameter_bytes(index))


def resolve_cost(model: Model, data: Dataset, options: RunOptions) -> Cost:
    """What a model stores, and what a run on a sample costs.

    Raises:
        InputError: the model can't be run on the data.
    """
    view = inline_for_data(model, data).model
    return whole_cost(model, view, resolve_shapes(view, GraphIndex(view.graph), data, options).shapes)

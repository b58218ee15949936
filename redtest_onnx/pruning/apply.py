"""Plan and model to a pruned model."""

from __future__ import annotations

from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import Shapes
from redtest_onnx.graph.surgery import Removal, remove_regions
from redtest_onnx.pruning.adapters import plain_adapter
from redtest_onnx.pruning.plan import Plan


def apply_plan(model: Model, plan: Plan, shapes: Shapes) -> Model:
    """Take the plan's layers out of the model.

    Args:
        model: the model the plan was made for.
        plan: what to take out.
        shapes: sizes for one sample; adapters are built for them.

    Raises:
        InputError: the graph can't be edited.
    """
    index = GraphIndex(model.graph)
    removals = []
    for step in plan.steps:
        adapter = plain_adapter(index, shapes, step.input, step.tensor) if step.action == "adapter" else ()
        removals.append(Removal(step.input, step.tensor, adapter))
    return remove_regions(model, removals)

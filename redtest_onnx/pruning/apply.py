"""Plan and model to a pruned model."""

from __future__ import annotations

import numpy as np
import onnx

from redtest_onnx.graph.model import FLOAT, Model
from redtest_onnx.graph.shapes import Shapes
from redtest_onnx.graph.surgery import Removal, remove_regions
from redtest_onnx.pruning.adapters import plain_adapter
from redtest_onnx.pruning.plan import Plan, Step


def apply_plan(model: Model, plan: Plan, shapes: Shapes) -> Model:
    """Take the plan's layers out of the model.

    Args:
        model: the model the plan was made for.
        plan: what to take out.
        shapes: sizes for one sample; adapters are built for them.

    Raises:
        InputError: the graph can't be edited.
    """
    return remove_regions(model, [_removal(step, shapes) for step in plan.steps])


def _removal(step: Step, shapes: Shapes) -> Removal:
    if step.action == "bypass":
        return Removal(step.input, step.tensor)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(shapes.dtypes.get(step.input, FLOAT))
    adapter = plain_adapter(shapes.sizes[step.input], shapes.sizes[step.tensor], np.dtype(dtype))
    return Removal(step.input, step.tensor, adapter)

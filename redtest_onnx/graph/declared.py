"""What a model costs as far as its declared shapes tell."""

from __future__ import annotations

from redtest_onnx.errors import InputError
from redtest_onnx.graph.cost import Cost, model_cost
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import Shapes, infer_shapes
from redtest_onnx.graph.signature import plan_inputs


def declared_cost(model: Model) -> Cost:
    """The cost of one sample by shape inference alone; the model is not run for that."""
    try:
        sizes = {plan.name: plan.shape for plan in plan_inputs(model, 1)}
    except InputError:
        return model_cost(index_of(model), Shapes())
    return model_cost(index_of(model), infer_shapes(model, sizes))

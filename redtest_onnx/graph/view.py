"""The view of a model in which its layers are looked for and edited."""

from __future__ import annotations

from dataclasses import replace

from redtest_onnx.graph.branches import InlinedModel
from redtest_onnx.graph.cache_edits import hide_caches
from redtest_onnx.graph.lifted import lift_weights
from redtest_onnx.graph.sizes import move_sizes
from redtest_onnx.graph.skip_norms import split_skip_norms


def with_separate_layers(view: InlinedModel) -> InlinedModel:
    """The view with all that ties layers together apart from the flow of activations taken out of their way.

    Weights of Constant nodes become initializers, outputs of caches are hidden, fused skip norms are split
    into the sum and the norm, and sizes are read at the inputs instead of inside layers. `InlinedModel.close`
    puts all of it back.
    """
    model = view.model
    model, weights = lift_weights(model)
    model, hidden = hide_caches(model)
    model, norms = split_skip_norms(model)
    model, sizes = move_sizes(model)
    rewrites = tuple(rewrite for rewrite in (weights, hidden, norms, sizes) if rewrite is not None)
    return replace(view, model=model, rewrites=rewrites) if rewrites else view

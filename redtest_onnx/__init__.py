"""Measure how redundant a trained network is and remove whole layers from its ONNX file.

import redtest_onnx as rt

model = rt.load("model.onnx")
data = rt.open_data("images.zip", model)
analysis = rt.analyze(model, data)
plan, analysis = rt.plan(model, data, rt.Budget(remove=4), analysis=analysis)
rt.save(rt.prune(model, data, plan, analysis).model, "pruned.onnx")
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redtest_onnx.bridge.convert import to_torch
    from redtest_onnx.bridge.write_back import from_torch
    from redtest_onnx.data.dataset import Dataset
    from redtest_onnx.data.images import ImageOptions
    from redtest_onnx.data.open import open_data
    from redtest_onnx.errors import InputError, NegativeVerdictError, OutputError, RedtestError
    from redtest_onnx.graph.files import load, save
    from redtest_onnx.graph.model import Model
    from redtest_onnx.layers.layer import Layer
    from redtest_onnx.pruning.budget import Budget
    from redtest_onnx.pruning.plan import Plan
    from redtest_onnx.pruning.prune import Pruning, plan, prune
    from redtest_onnx.runtime.session import RunOptions
    from redtest_onnx.similarity.analyze import Analysis, AnalysisSettings, analyze

__all__ = [
    "Analysis",
    "AnalysisSettings",
    "Budget",
    "Dataset",
    "ImageOptions",
    "InputError",
    "Layer",
    "Model",
    "NegativeVerdictError",
    "OutputError",
    "Plan",
    "Pruning",
    "RedtestError",
    "RunOptions",
    "analyze",
    "from_torch",
    "load",
    "open_data",
    "plan",
    "prune",
    "save",
    "to_torch",
]

_HOMES = {
    "Analysis": "redtest_onnx.similarity.analyze",
    "AnalysisSettings": "redtest_onnx.similarity.analyze",
    "Budget": "redtest_onnx.pruning.budget",
    "Dataset": "redtest_onnx.data.dataset",
    "ImageOptions": "redtest_onnx.data.images",
    "InputError": "redtest_onnx.errors",
    "Layer": "redtest_onnx.layers.layer",
    "Model": "redtest_onnx.graph.model",
    "NegativeVerdictError": "redtest_onnx.errors",
    "OutputError": "redtest_onnx.errors",
    "Plan": "redtest_onnx.pruning.plan",
    "Pruning": "redtest_onnx.pruning.prune",
    "RedtestError": "redtest_onnx.errors",
    "RunOptions": "redtest_onnx.runtime.session",
    "analyze": "redtest_onnx.similarity.analyze",
    "from_torch": "redtest_onnx.bridge",
    "load": "redtest_onnx.graph.files",
    "open_data": "redtest_onnx.data.open",
    "plan": "redtest_onnx.pruning.prune",
    "prune": "redtest_onnx.pruning.prune",
    "save": "redtest_onnx.graph.files",
    "to_torch": "redtest_onnx.bridge",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the command line must answer before onnx is loaded."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

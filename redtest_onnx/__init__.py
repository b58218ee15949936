"""Measure how redundant a trained network is and remove whole layers from its ONNX file.

import redtest_onnx as rt

model = rt.load("model.onnx")
data = rt.open_data("images.zip", model)
analysis = rt.analyze(model, data)
plan, analysis = rt.plan(model, data, rt.Budget(remove=4), analysis=analysis)
rt.save(rt.prune(model, data, plan, analysis).model, "pruned.onnx")
"""

from redtest_onnx.analysis import Analysis, AnalysisSettings, analyze
from redtest_onnx.errors import InputError, NegativeVerdictError, OutputError, RedtestError
from redtest_onnx.graph.layers import Layer
from redtest_onnx.graph.model import Model, load, save
from redtest_onnx.pruning.budget import Budget
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.prune import Pruning, plan, prune
from redtest_onnx.runtime.data import Dataset, open_data
from redtest_onnx.runtime.images import ImageOptions
from redtest_onnx.runtime.session import RunOptions

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
    "load",
    "open_data",
    "plan",
    "prune",
    "save",
]

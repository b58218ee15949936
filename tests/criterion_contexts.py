"""What criteria choose from, of the embedded models."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

import redtest_onnx as rt
from redtest_onnx.data.dataset import Subset
from redtest_onnx.data.splits import Splits, fit_indices
from redtest_onnx.pruning.criteria.base import CriterionContext
from redtest_onnx.runtime.workbench import Workbench

MODELS = Path(__file__).parents[1] / "models"
CPU = rt.RunOptions(device="cpu", threads=1)


@cache
def criterion_context(name: str, fitted: int) -> CriterionContext:
    """The analysis of a model on 32 samples, with so many of 160 to fit on."""
    model = rt.load(MODELS / f"{name}_digits.onnx")
    data = Subset(rt.open_data(MODELS / "digits.npz", model), np.arange(160))
    analysis = rt.analyze(model, data, rt.AnalysisSettings(samples=32, batches=2), CPU)
    splits = replace(Splits.of(data, 0), fit=fit_indices(data, 0)[:fitted])
    return CriterionContext(Workbench(model, data, CPU, splits=splits), analysis)

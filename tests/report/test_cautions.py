from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

import redtest_onnx as rt
from redtest_onnx.graph.cost import Cost
from redtest_onnx.report.cautions import cautions
from redtest_onnx.report.page.layers import analysis_page
from redtest_onnx.report.page.provenance import Provenance
from redtest_onnx.report.page.render import render_page
from redtest_onnx.similarity.analyze import WithoutLargest

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="module")
def analysis() -> rt.Analysis:
    model = rt.load(MODELS / "vgg_digits.onnx")
    data = rt.open_data(MODELS / "digits.npz", model)
    return rt.analyze(model, data, rt.AnalysisSettings(samples=64), rt.RunOptions("cpu"))


def test_nothing_to_mind(analysis: rt.Analysis) -> None:
    assert cautions(analysis) == []


def test_samples_that_decide(analysis: rt.Analysis) -> None:
    few = replace(
        analysis, dominated=("a", "b", "c", "d"), without_largest=WithoutLargest(3, 12.34, (0.5, 0.5))
    )
    assert "in a, b, c, d a few samples" in cautions(few)[0]
    assert cautions(few)[1] == "Without them (3 of 384 samples) MSRS is 12.3."
    many = replace(analysis, dominated=("a", "b", "c", "d", "e"))
    assert "in a, b, c and 2 more layers a few samples" in cautions(many)[0]
    model = rt.load(MODELS / "vgg_digits.onnx")
    page = analysis_page(model, Cost(1, 1, 1, 1), few, Provenance("", "", ""))
    assert cautions(few)[1] in render_page(page)


def test_samples_that_hide_the_others(analysis: rt.Analysis) -> None:
    hidden = replace(analysis, dominated=("a",), without_largest=WithoutLargest(1, math.nan, (math.nan,)))
    assert cautions(hidden)[1] == (
        "They are so large that rounding hides the others (1 of 384): measure without them."
    )


def test_layers_that_do_not_vary(analysis: rt.Analysis) -> None:
    similarity = analysis.similarity.copy()
    similarity[1] = similarity[:, 1] = float("nan")
    assert cautions(replace(analysis, similarity=similarity))[0].endswith(f": {analysis.layers[1].name}.")

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

import redtest_onnx as rt
from redtest_onnx.documents.base import write_json
from redtest_onnx.similarity.analyze import WithoutLargest
from redtest_onnx.similarity.saved import load_analysis

MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.parametrize("msrs", [12.5, math.nan, None])
def test_what_is_known_without_large_samples_is_kept(msrs: float | None, tmp_path: Path) -> None:
    model = rt.load(MODELS / "vgg_digits.onnx")
    data = rt.open_data(MODELS / "digits.npz", model)
    analysis = rt.analyze(model, data, rt.AnalysisSettings(samples=16), rt.RunOptions("cpu"))
    without = None if msrs is None else WithoutLargest(3, msrs, (0.5, math.nan))
    analysis = replace(analysis, without_largest=without)
    document = analysis.to_dict()
    write_json(document, str(tmp_path / "a.json"))
    found = load_analysis(tmp_path / "a.json", model).without_largest
    assert repr(found) == repr(without)  # NaN differs from itself
    del document["without_largest"]  # as files of older versions
    (tmp_path / "old.json").write_text(json.dumps(document))
    assert load_analysis(tmp_path / "old.json", model).without_largest is None

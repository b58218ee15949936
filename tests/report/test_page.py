"""The page and the picture, with names that try to break them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

import redtest_onnx as rt
from redtest_onnx.report.heatmap import draw_heatmap, heatmap_svg
from redtest_onnx.report.html import save_page

MODELS = Path(__file__).parents[2] / "models"


def analysis() -> rt.Analysis:
    model = rt.load(MODELS / "vgg_digits.onnx")
    data = rt.open_data(MODELS / "digits.npz", model)
    return rt.analyze(model, data, rt.AnalysisSettings(samples=16, batches=1), rt.RunOptions("cpu"))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    found = analysis()
    names = "<script>alert(1)</script>", r"$\bad{", "[red]"
    layers = (*(replace(found.layers[k], name=name) for k, name in enumerate(names)), *found.layers[3:])
    save_page(replace(found, layers=layers), "<b>title</b>", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "<b>title" not in text
    assert "&lt;script&gt;" in text


def test_undefined_similarities_are_called_so(tmp_path: Path) -> None:
    found = analysis()
    similarity = found.similarity.copy()
    similarity[3] = similarity[:, 3] = np.nan
    save_page(replace(found, similarity=similarity), "title", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count(">undefined<") == 2


def test_removed_layers_and_the_comparison_are_shown(tmp_path: Path) -> None:
    found = analysis()
    name = found.layers[2].name
    save_page(found, "title", tmp_path / "page.html", removed=[name], comparison=[("MACs", "2", "1", "-50%")])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count('<tr class="gone">') == 1
    assert "-50%" in text


def test_the_same_analysis_gives_the_same_picture() -> None:
    found = analysis()
    assert heatmap_svg(found, "t") == heatmap_svg(found, "t")


def test_the_picture_has_a_point_for_each_pair_of_neighbours() -> None:
    found = analysis()
    above, below, *_ = draw_heatmap(found, "t").axes
    assert above.images[0].get_array().shape == (12, 12)
    assert sum(len(points.get_offsets()) for points in below.collections) == 11

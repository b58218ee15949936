"""The papers' pictures: what they show, and that no text is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from samples import sample_analysis

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.ranking.candidate import Candidate
from redtest_onnx.report.families import draw_family
from redtest_onnx.report.feature_maps import draw_feature_maps
from redtest_onnx.report.heatmap import draw_heatmap
from redtest_onnx.report.iterations import draw_iterations
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.feature_maps import feature_map_pairs
from redtest_onnx.weight_sparsity.iterative.iterative import IterativePruning
from redtest_onnx.weight_sparsity.iterative.records import Iteration

MODELS = Path(__file__).parents[2] / "models"
QUICK = rt.AnalysisSettings(samples=32, batches=1)


def texts(figure: Figure) -> list[str]:
    """All texts that are drawn, each of which lies inside the figure."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, edge = canvas.get_renderer(), figure.bbox
    hidden = set()
    for axes in figure.axes:
        # Labels of ticks beyond the limits exist and are not drawn.
        for axis, limits, k in ((axes.xaxis, axes.get_xlim(), 0), (axes.yaxis, axes.get_ylim(), 1)):
            low, high = sorted(limits)
            labels = axis.get_ticklabels(which="both")
            hidden |= {id(t) for t in labels if not low <= t.get_position()[k] <= high}
    found = []
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden:
            box = text.get_window_extent(renderer)
            assert edge.x0 - 1 <= box.x0 <= box.x1 <= edge.x1 + 1, text.get_text()
            assert edge.y0 - 1 <= box.y0 <= box.y1 <= edge.y1 + 1, text.get_text()
            found.append(text.get_text())
    return found


def candidate(k: int, **values: Any) -> Candidate:
    given = {"accuracy": 0.8 + 0.01 * k, "parameters": 10 ** (4 + k), "macs": 10 ** (6 + k), "msrs": 3.0 * k}
    return Candidate(name=f"models/a_rather_long_name_of_a_network_{k}.onnx", **(given | values))


def test_a_family_is_sorted_by_cost_and_every_name_is_there() -> None:
    figure = draw_family([candidate(2), candidate(0, accuracy=None), candidate(1)], "macs")
    shown = texts(figure)
    names = [text.get_text() for text in figure.axes[2].get_xticklabels()]
    assert names == [f"a_rather_long_name_of_a_network_{k}.onnx" for k in range(3)]
    assert {"MSRS", "accuracy", "MACs"} <= set(shown)
    msrs, accuracy, macs = (axes.lines[0].get_xydata().tolist() for axes in figure.axes)
    assert msrs == [[0, 0], [1, 3], [2, 6]]
    assert accuracy == [[1, pytest.approx(0.81)], [2, pytest.approx(0.82)]]  # an unknown one leaves a gap
    assert [y for _, y in macs] == [1e6, 1e7, 1e8]


def test_a_measure_that_nobody_has_is_said() -> None:
    assert "not measured" in texts(draw_family([candidate(0, accuracy=None)], "parameters"))


def test_removed_layers_are_marked_on_the_heat_map() -> None:
    analysis = sample_analysis(12)
    removed = {analysis.layers[k].name for k in (3, 7)}
    figure = draw_heatmap(analysis, "net", removed)
    corners = [patch.get_xy() for patch in figure.axes[0].patches]
    assert corners == [(1.5, 1.5), (5.5, 5.5)]
    shown = " ".join(texts(figure))
    assert "2 layers marked for removal" in shown.replace("\n", " ")
    assert "removed" in [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert not draw_heatmap(analysis, "net").axes[0].patches


def iteration(number: int, kept: int, accuracy: float) -> Iteration:
    index = ({"global": 0.2 + 0.01 * number}, {"global": 0.3})
    return Iteration(number, kept, 1000, index, accuracy, 0.1, 1.0)


def test_iterations_show_index_accuracy_and_weights_left() -> None:
    steps = (iteration(0, 1000, 0.9), iteration(1, 800, 0.95), iteration(2, 500, 0.4))
    run_of = IterativePruning(rt.load(MODELS / "vgg_digits.onnx"), [], steps, steps[1], 0.95)
    figure = draw_iterations(run_of, ((0.5, 1.0), (1.0, 2.0)), "sap of net.onnx")
    texts(figure)
    index, accuracy, left = figure.axes
    assert [line.get_label() for line in index.lines[:2]] == ["p=0.5, q=1", "p=1, q=2"]
    assert np.allclose(index.lines[0].get_ydata(), [0.2, 0.21, 0.22])
    assert list(accuracy.lines[0].get_ydata()) == [0.9, 0.95, 0.4]
    assert list(left.lines[0].get_ydata()) == [1.0, 0.8, 0.5]
    assert accuracy.get_ylim()[0] < 0.4
    assert accuracy.get_ylim()[1] < 1.01


def bench_of(name: str) -> tuple[Workbench, rt.Analysis]:
    model = rt.load(MODELS / f"{name}_digits.onnx")
    bench = Workbench(model, rt.open_data(MODELS / "digits.npz", model))
    return bench, rt.analyze(bench, settings=QUICK)


def test_feature_maps_are_what_the_layers_give() -> None:
    bench, analysis = bench_of("resnet")
    pairs = feature_map_pairs(bench, analysis, pairs=2, sample=5)
    similarities = [pair.similarity for pair in pairs]
    assert similarities[:2] == sorted(similarities[:2], reverse=True)
    assert similarities[2] == min(similarities)
    first = pairs[0]
    assert first.after.index == first.before.index + 1
    tapped = Session(expose(bench.model, [first.after.tensor]))
    expected = tapped.run(bench.data.inputs(np.array([5])))[first.after.tensor][0]
    assert np.allclose(first.maps[1], expected[first.channels[1]], atol=1e-6)
    assert min(first.maps[0].shape[1:]) >= 4
    shown = texts(draw_feature_maps(pairs, "net"))
    assert f"unbiased CKA {similarities[0]:.3f}" in shown
    assert first.before.name in shown


def test_where_channels_change_each_is_shown_beside_another() -> None:
    bench, analysis = bench_of("vgg")
    pairs = feature_map_pairs(bench, analysis, pairs=20)
    changed = [pair for pair in pairs if pair.before.shape != pair.after.shape]
    assert changed
    for pair in changed:
        assert len(set(pair.channels[1].tolist())) == len(pair.maps[1]) == len(pair.maps[0])


def test_models_without_images_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "maps.png"
    call = ["analyze", str(MODELS / "vit_digits.onnx"), "--samples", "8", "--batches", "1"]
    assert run([*call, "--feature-maps", str(picture)]) == 2
    assert "feature maps are for models of images" in capsys.readouterr().err
    assert not picture.exists()


def test_commands_write_them(tmp_path: Path) -> None:
    net, data = str(MODELS / "vgg_digits.onnx"), str(MODELS / "digits.npz")
    quick = ["--samples", "32", "--batches", "1"]
    maps, marked, family = (tmp_path / name for name in ("maps.svg", "marked.svg", "family.svg"))
    assert run(["analyze", net, "--data", data, *quick, "--feature-maps", str(maps)]) == 0
    assert (
        run(["prune", net, "--data", data, *quick, "--remove", "2", "--dry-run", "--png", str(marked)]) == 0
    )
    assert run(["rank", net, "--data", data, *quick, "--family", str(family)]) == 0
    for path in (maps, marked, family):
        assert path.read_text(encoding="utf-8").startswith("<?xml")

"""Pictures: formats by suffix, refused before any work; labels whole and apart; the same bytes each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from samples import sample_analysis

from redtest_onnx.cli.main import run
from redtest_onnx.errors import OutputError
from redtest_onnx.ranking.candidate import Candidate
from redtest_onnx.ranking.rank import RankingSettings, rank_candidates
from redtest_onnx.report.comparisons import draw_cross_heatmap
from redtest_onnx.report.figures import save_figure
from redtest_onnx.report.heatmap import draw_heatmap
from redtest_onnx.report.ranking_figures import draw_ranking, staircase
from redtest_onnx.similarity.analyze import AnalysisSettings
from redtest_onnx.similarity.compare import Comparison

MODELS = Path(__file__).parents[2] / "models"


def comparison(rows: int, columns: int) -> Comparison:
    return Comparison(
        rows=tuple(f"/a/very/long/name/of/a/layer.{k}/Conv_output_0" for k in range(rows)),
        columns=tuple(f"/another/name.{k}" for k in range(columns)),
        similarity=np.random.default_rng(0).uniform(0, 1, (rows, columns)),
        settings=AnalysisSettings(),
        sources=("a", "b"),
        samples=8,
        batches=1,
    )


def boxes_of(figure: Figure) -> tuple[Any, list[Any]]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = []
    for axes in figure.axes:
        # Labels of ticks beyond the limits exist and are not drawn.
        low, high = sorted(axes.get_xlim())
        texts += [t for t in axes.get_xticklabels() if low <= t.get_position()[0] <= high]
        low, high = sorted(axes.get_ylim())
        texts += [t for t in axes.get_yticklabels() if low <= t.get_position()[1] <= high]
        texts += axes.texts
    texts += [axes.title for axes in figure.axes] + figure.texts
    shown = [t for t in texts if t.get_text() and t.get_visible()]
    return figure.bbox, [t.get_window_extent(renderer) for t in shown]


@pytest.mark.parametrize("size", [3, 28, 201])
def test_no_label_of_the_heat_map_is_cut_or_covered(size: int) -> None:
    figure = draw_heatmap(sample_analysis(size), "a/long/path/to/a/model/of/many/layers.onnx " * 3)
    whole, boxes = boxes_of(figure)
    for box in boxes:
        assert box.x0 >= -1
        assert box.x1 <= whole.x1 + 1
        assert box.y1 <= whole.y1 + 1
    assert not [
        1
        for k, a in enumerate(boxes)
        for b in boxes[k + 1 :]
        if a.shrunk(0.9, 0.8).overlaps(b.shrunk(0.9, 0.8))
    ]


@pytest.mark.parametrize("shape", [(28, 12), (5, 60), (80, 3)])
def test_matrices_that_are_not_square_fill_the_figure(shape: tuple[int, int]) -> None:
    figure = draw_cross_heatmap(comparison(*shape), ("one.onnx", "two.onnx"))
    whole, boxes = boxes_of(figure)
    for box in boxes:
        assert box.x0 >= -1
        assert box.y0 >= -1
    axes = figure.axes[0].get_window_extent()
    assert axes.width > 0.45 * whole.width
    assert axes.height > 0.4 * whole.height


def candidates(count: int) -> list[Candidate]:
    random = np.random.default_rng(1)
    return [
        Candidate(
            name=f"models/net_{k}.onnx",
            accuracy=float(a),
            parameters=1000,
            macs=int(m),
            msrs=1.0 + k,
            layers=9,
        )
        for k, (a, m) in enumerate(
            zip(random.uniform(0.8, 0.99, count), random.uniform(1e6, 1e9, count), strict=True)
        )
    ]


@pytest.mark.parametrize("count", [2, 8, 120])
def test_points_of_a_ranking_have_names_that_cover_nothing(count: int) -> None:
    ranking = rank_candidates(candidates(count), RankingSettings())
    figure = draw_ranking(ranking)
    axes = figure.axes[0]
    names = [text.get_text() for text in axes.texts]
    assert len(names) == count if count < 10 else len(names) > 10
    assert all("net_" in name for name in names)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert not [1 for k, a in enumerate(boxes) for b in boxes[k + 1 :] if a.overlaps(b)]
    assert any(len(line.get_xdata()) for line in axes.lines)


def test_the_front_is_what_no_other_point_beats() -> None:
    assert staircase([1, 2, 3, 4, 2], [0.5, 0.9, 0.8, 0.95, 0.7]) == [0, 1, 3]


@pytest.mark.parametrize(("suffix", "head"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_suffix_tells_the_format_and_bytes_repeat(tmp_path: Path, suffix: str, head: bytes) -> None:
    for name in ("one", "two"):
        save_figure(draw_heatmap(sample_analysis(4), "t"), tmp_path / f"{name}{suffix}")
    one, two = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("one", "two"))
    assert one.startswith(head)
    assert one == two


@pytest.mark.parametrize("command", ["analyze", "compare", "rank", "sparsity"])
def test_other_suffixes_are_refused_before_any_work(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option = "--figure" if command == "sparsity" else "--png"
    missing = str(tmp_path / "missing.onnx")
    second = [missing] if command == "compare" else []
    assert run([command, missing, *second, option, str(tmp_path / "map.gif")]) == 2
    captured = capsys.readouterr()
    assert f"{option} writes .png, .svg or .pdf, not files of .gif" in captured.err
    with pytest.raises(OutputError, match="no suffix"):
        save_figure(draw_heatmap(sample_analysis(3), "t"), tmp_path / "map")
    assert not list(tmp_path.iterdir())

"""A saved analysis under another score, held against its definition and against measuring again."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.documents.base import write_json
from redtest_onnx.similarity.rescore import rescore
from redtest_onnx.similarity.saved import read_analysis

MODELS = Path(__file__).parents[2] / "models"
SCORES = [(0.9, 100.0, False), (0.6, 5.0, True), (0.85, math.inf, False), (0.7, math.inf, True)]


def slow(matrix: npt.NDArray[np.float64], threshold: float, alpha: float, gate: bool) -> float:
    total = 0.0
    for i in range(len(matrix)):
        for j in range(i + 1, len(matrix)):
            value = matrix[i, j]
            if math.isnan(value) or (gate and value <= threshold):
                continue
            total += float(value > threshold) if math.isinf(alpha) else (
                1 + math.tanh(alpha * (value - threshold))
            ) / 2  # fmt: skip
    return total


@pytest.fixture(scope="module", params=["minibatch", "paper", "exact"])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One analysis under the default score, and the place of others with the same estimator."""
    folder = tmp_path_factory.mktemp(request.param)
    write_json(analysis_of(request.param).to_dict(), str(folder / "saved.json"))
    return folder / "saved.json", folder


def analysis_of(estimator: str, **score: float | bool) -> rt.Analysis:
    settings = rt.AnalysisSettings(samples=32, batches=4, estimator=estimator, **score)  # type: ignore[arg-type]
    model, data = MODELS / "vgg_digits.onnx", MODELS / "digits.npz"
    return rt.analyze(model, data, settings, rt.RunOptions("cpu", 1))


@pytest.mark.parametrize(("threshold", "alpha", "gate"), SCORES)
def test_it_is_what_measuring_again_gives(
    measured: tuple[Path, Path], threshold: float, alpha: float, gate: bool
) -> None:
    saved = read_analysis(measured[0]).analysis
    found = rescore(saved, threshold=threshold, alpha=alpha, gate=gate)
    again = analysis_of(saved.settings.estimator, threshold=threshold, alpha=alpha, gate=gate)
    new, old = found.analysis.redundancy, again.redundancy
    assert new.value == pytest.approx(old.value, rel=1e-9)
    assert new.std == (None if old.std is None else pytest.approx(old.std, rel=1e-9))
    assert new.standard_error == (
        None if old.standard_error is None else pytest.approx(old.standard_error, rel=1e-6)
    )
    assert new.per_batch == pytest.approx(old.per_batch, rel=1e-9)
    assert found.analysis.settings == again.settings
    if saved.settings.estimator != "paper":
        assert new.value == pytest.approx(slow(saved.similarity, threshold, alpha, gate), rel=1e-9)


@pytest.mark.parametrize(("threshold", "alpha", "gate"), SCORES)
def test_without_batches_the_matrix_is_scored_and_that_is_said(
    measured: tuple[Path, Path], threshold: float, alpha: float, gate: bool
) -> None:
    saved = replace(read_analysis(measured[0]).analysis, hsic_batches=None)
    found = rescore(saved, threshold=threshold, alpha=alpha, gate=gate)
    score = found.analysis.redundancy
    assert score.value == pytest.approx(slow(saved.similarity, threshold, alpha, gate), rel=1e-9)
    assert (score.std, score.standard_error) == (None, None)
    several = len(saved.redundancy.per_batch) > 1
    assert len(score.per_batch) == (0 if several else 1)
    assert any("single batches" in note for note in found.notes) == several
    assert any("'paper'" in note for note in found.notes) == (saved.settings.estimator == "paper")


def test_the_same_score_changes_nothing(measured: tuple[Path, Path]) -> None:
    saved = read_analysis(measured[0]).analysis
    assert rescore(saved, threshold=saved.redundancy.threshold).analysis is saved


def test_the_command_writes_a_document_that_is_read_again(measured: tuple[Path, Path]) -> None:
    saved, folder = measured
    out = folder / "new.json"
    arguments = ["analyze", str(saved), "--threshold", "0.9", "--alpha", "inf", "--gate", "--json", str(out)]
    assert run([*arguments, "--force"]) == 0
    document = json.loads(out.read_text())
    assert document["msrs"]["alpha"] == document["settings"]["alpha"] == "inf"
    assert document["msrs"]["value"] == round(document["msrs"]["value"] * 4) / 4  # four batches of counts
    again = read_analysis(out).analysis.redundancy
    assert (again.alpha, again.threshold, again.gate) == (math.inf, 0.9, True)
    assert document["model"] == json.loads(saved.read_text())["model"]


@pytest.mark.parametrize(
    "option", [["--samples", "8"], ["--data", "x.npz"], ["--html", "page.html"], ["--estimator", "paper"]]
)
def test_options_of_a_measurement_are_refused(
    measured: tuple[Path, Path], option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["analyze", str(measured[0]), *option]) == 2
    assert option[0] in capsys.readouterr().err


def test_another_document_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text('{"schema": "redtest-onnx/prune/1"}')
    assert run(["analyze", str(tmp_path / "a.json"), "--threshold", "0.9"]) == 2
    assert "is not an analysis" in capsys.readouterr().err

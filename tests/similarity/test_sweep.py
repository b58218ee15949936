"""Sweeps hold what single analyses give, and a threshold is proposed as its definition says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.documents.base import write_json
from redtest_onnx.metrics.cka import Estimator
from redtest_onnx.report.sweeps import sweep_table
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.saved import read_analysis
from redtest_onnx.similarity.sweep import ALPHAS, THRESHOLDS, propose_threshold, sweep, sweep_scores

MODELS = Path(__file__).parents[2] / "models"
MODEL, DIGITS = MODELS / "vgg_digits.onnx", MODELS / "digits.npz"
CPU = rt.RunOptions("cpu", 1)
SETTINGS = rt.AnalysisSettings(samples=48, batches=3)


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return rt.open_workbench(MODEL, DIGITS, options=CPU)


@pytest.fixture(scope="module")
def analysis(bench: Workbench) -> rt.Analysis:
    return rt.analyze(bench, None, SETTINGS)


def test_points_are_single_analyses(bench: Workbench, analysis: rt.Analysis) -> None:
    found = sweep(bench, analysis)
    used = replace(SETTINGS, threshold=analysis.redundancy.threshold)
    for choice, value, change in (
        ("samples", 32.0, {"samples": 32}),
        ("alpha", 20.0, {"alpha": 20.0}),
        ("alpha", math.inf, {"alpha": math.inf}),
        ("threshold", 0.9, {"threshold": 0.9}),
    ):
        for estimator in ("minibatch", "paper", "biased"):
            (point,) = (p for p in found.of(choice, estimator) if p.value == value)  # type: ignore[arg-type]
            settings = replace(used, estimator=estimator, **change)  # type: ignore[arg-type]
            own = rt.analyze(bench, None, settings).redundancy
            assert point.msrs == pytest.approx(own.value, rel=1e-9)
            assert point.std == pytest.approx(own.std, rel=1e-9)
            assert point.standard_error == pytest.approx(own.standard_error, rel=1e-6)
    assert [p.value for p in found.of("samples", "paper")] == [8, 16, 32, 48, 64, 128]
    thresholds = [p.msrs for p in found.of("threshold", "minibatch")]
    assert thresholds == sorted(thresholds, reverse=True)
    assert len(sweep_table(found).rows) == 6 + len(ALPHAS) + len(THRESHOLDS)
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_estimator_without_batches_is_refused(bench: Workbench) -> None:
    exact = rt.analyze(bench, None, replace(SETTINGS, estimator="exact"))
    with pytest.raises(rt.InputError, match="varies batches"):
        sweep(bench, exact)


def test_the_proposed_threshold_is_the_lowest_without_a_redundant_pair(analysis: rt.Analysis) -> None:
    found = propose_threshold(analysis, analysis, "small")
    below = rt.analyze(MODEL, DIGITS, replace(SETTINGS, threshold=found.threshold - 0.01), CPU)
    at = rt.analyze(MODEL, DIGITS, replace(SETTINGS, threshold=found.threshold), CPU)
    assert below.redundancy.value >= 0.5 > at.redundancy.value
    assert found.small_msrs == found.msrs == pytest.approx(at.redundancy.value)


def test_a_network_that_repeats_itself_proposes_nothing() -> None:
    net = Net(x=["n", 6])
    hidden = net("MatMul", "x", net.weight(6, 6))
    for _ in range(3):
        hidden = net("Mul", hidden, net.store([2.0] * 6))
    same = rt.analyze(net.model(hidden), None, rt.AnalysisSettings(layers="all", samples=32, batches=2))
    with pytest.raises(rt.InputError, match="no network that underfits"):
        propose_threshold(same, same, "same.onnx")


def test_the_command_draws_tells_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure, document, page = (tmp_path / name for name in ("s.svg", "a.json", "a.html"))
    options = ["--data", str(DIGITS), "--samples", "48", "--batches", "2", "--underfitting", str(MODEL)]
    views = ["--sweep", str(figure), "--json", str(document), "--html", str(page)]
    assert run(["analyze", str(MODEL), *options, *views]) == 0
    out = capsys.readouterr().out
    assert "Proposed threshold 0." in out
    drawn = figure.read_text(encoding="utf-8")
    for text in ("samples per batch", "alpha", "threshold", "proposed", "biased"):
        assert text in drawn
    found = json.loads(document.read_text(encoding="utf-8"))
    assert {point["choice"] for point in found["sweep"]} == {"samples", "alpha", "threshold"}
    assert found["proposed_threshold"]["small"] == MODEL.name
    assert "MSRS over what is to be chosen" in page.read_text(encoding="utf-8")
    assert run(["analyze", str(MODEL), "--sweep", str(tmp_path / "s.txt")]) == 2


def saved_as(estimator: Estimator, path: Path, batches: int = 3) -> rt.Analysis:
    """An analysis with that estimator, written and read again."""
    settings = replace(SETTINGS, estimator=estimator, batches=batches)
    write_json(rt.analyze(MODEL, DIGITS, settings, CPU).to_dict(), str(path))
    return read_analysis(path).analysis


@pytest.mark.parametrize("estimator", ["minibatch", "paper"])
def test_saved_batches_give_the_sweep_of_the_model_without_running_it(
    estimator: Estimator, bench: Workbench, analysis: rt.Analysis, tmp_path: Path
) -> None:
    found, whole = sweep_scores(saved_as(estimator, tmp_path / "a.json")), sweep(bench, analysis)
    assert found.choices == ("alpha", "threshold")
    assert found.estimators == ("minibatch", "paper")
    for choice in found.choices:
        for reading in found.estimators:
            for point, other in zip(found.of(choice, reading), whole.of(choice, reading), strict=True):
                assert (point.value, point.batches) == (other.value, other.batches)
                assert point.msrs == pytest.approx(other.msrs, rel=1e-9)
                assert point.std == pytest.approx(other.std, rel=1e-9)
                assert point.standard_error == pytest.approx(other.standard_error, rel=1e-6)


@pytest.mark.parametrize(("estimator", "batches"), [("exact", 3), ("biased", 3), ("minibatch", 1)])
def test_other_saved_measurements_give_their_own_estimator(
    estimator: Estimator, batches: int, tmp_path: Path
) -> None:
    saved = saved_as(estimator, tmp_path / "a.json", batches)
    found = sweep_scores(saved)
    assert found.estimators == (estimator,)
    at = {(p.choice, p.value): p for p in found.points}
    assert at["threshold", 0.7].msrs == pytest.approx(saved.redundancy.value, rel=1e-9)
    assert (at["threshold", 0.7].std is None) == (estimator != "biased")


def test_a_mean_over_batches_that_are_not_in_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    saved_as("paper", path)
    document = {**json.loads(path.read_text(encoding="utf-8")), "hsic_batches": None}
    path.write_text(json.dumps(document), encoding="utf-8")
    figure = tmp_path / "s.svg"
    assert run(["analyze", str(path), "--sweep", str(figure)]) == 2
    assert not figure.exists()
    with pytest.raises(rt.InputError, match="no similarities of single batches"):
        sweep_scores(read_analysis(path).analysis)


def test_the_command_sweeps_and_proposes_from_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, figure, new = (tmp_path / name for name in ("a.json", "s.svg", "new.json"))
    saved_as("minibatch", saved)
    outputs = ["--sweep", str(figure), "--json", str(new)]
    assert run(["analyze", str(saved), "--underfitting", str(saved), "--alpha", "inf", *outputs]) == 0
    out = capsys.readouterr().out
    assert "Samples per batch are not varied: that takes the model and its data." in out
    assert "Proposed threshold 0." in out
    drawn = figure.read_text(encoding="utf-8")
    assert "samples per batch" not in drawn
    assert "proposed" in drawn
    found = json.loads(new.read_text(encoding="utf-8"))
    assert {point["choice"] for point in found["sweep"]} == {"alpha", "threshold"}
    assert found["proposed_threshold"]["small"] == MODEL.name
    assert (
        run(["analyze", str(new), "--threshold", "0.9", "--json", str(new), "--force"]) == 2
    )  # its own input
    assert run(["analyze", str(new), "--threshold", "0.9", "--json", str(saved), "--force"]) == 0
    again = json.loads(saved.read_text(encoding="utf-8"))
    assert {"sweep", "proposed_threshold"} & again.keys() == set()


def test_only_like_measurements_propose_a_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, other = tmp_path / "a.json", tmp_path / "b.json"
    saved_as("minibatch", saved)
    saved_as("minibatch", other, batches=2)
    missing = tmp_path / "none.json"
    for small, why in ((MODEL, "is no saved analysis"), (other, "batches 2"), (missing, "no such file")):
        assert run(["analyze", str(saved), "--underfitting", str(small)]) == 2
        assert why in capsys.readouterr().err
    options = ["--data", str(DIGITS), "--samples", "48", "--batches", "3"]
    assert run(["analyze", str(MODEL), *options, "--underfitting", str(saved)]) == 0
    assert "Proposed threshold 0." in capsys.readouterr().out


def test_the_network_that_underfits_is_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, small = tmp_path / "a.json", tmp_path / "small.json"
    saved_as("minibatch", saved)
    saved_as("minibatch", small)
    before = small.read_bytes()
    for model in (saved, MODEL):
        arguments = ["analyze", str(model), "--underfitting", str(small), "--json", str(small), "--force"]
        assert run(arguments) == 2
        assert "would overwrite what is read" in capsys.readouterr().err
    assert small.read_bytes() == before

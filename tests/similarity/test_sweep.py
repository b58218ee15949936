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
from redtest_onnx.report.sweeps import sweep_table
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.sweep import ALPHAS, THRESHOLDS, propose_threshold, sweep

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

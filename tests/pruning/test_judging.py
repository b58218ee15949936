"""The pass that measures is the one that judges: fewer runs, and the same numbers but for rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import redtest_onnx as rt
from redtest_onnx.pruning import judging
from redtest_onnx.pruning.budget import Budget
from redtest_onnx.pruning.prune import PruneSettings, Pruning, plan, prune
from redtest_onnx.runtime.answers import Answers
from redtest_onnx.runtime.session import RunOptions, Session
from redtest_onnx.runtime.workbench import Workbench

MODELS = Path(__file__).parents[2] / "models"
CPU = RunOptions(device="cpu", threads=1)
EVERY = rt.AnalysisSettings(samples=397, batches=1)


def opened(path: Path = MODELS / "resnet_digits.onnx", data: Any = MODELS / "digits.npz") -> Workbench:
    model = rt.load(path)
    return Workbench(model, rt.open_data(data, model, count=32), CPU)


def pruned(bench: Workbench, repair: Any = "none") -> Pruning:
    settings = PruneSettings(repair=repair, similarity=EVERY)
    chosen, analysis = plan(bench, Budget(remove=3), settings)
    return prune(bench, chosen, analysis, settings)


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of samples of every run of more than one."""
    seen: list[int] = []
    for name in ("run", "run_in_place"):
        method = getattr(Session, name)

        def counted(self: Session, feeds: Any, *rest: Any, method: Any = method, **how: Any) -> Any:
            count = len(next(iter(feeds.values())))
            seen.extend([count] if count > 2 else [])
            return method(self, feeds, *rest, **how)

        monkeypatch.setattr(Session, name, counted)
    return seen


def test_every_sample_is_run_once_for_each_model(monkeypatch: pytest.MonkeyPatch, samples: list[int]) -> None:
    expected = pruned(bench := opened())
    apart = sum(samples)
    samples.clear()
    monkeypatch.setattr(judging, "_LEAST_MACS", 0)
    found = pruned(opened())
    every = expected.analysis.samples
    assert apart >= 2 * every + 2 * len(bench.judging.indices)
    assert sum(samples) <= 2 * (every + 64)  # runs of one size repeat a few samples at the end
    assert found.model.serialised() == expected.model.serialised()
    assert found.before.msrs == pytest.approx(expected.before.msrs, rel=1e-6)
    assert found.after.msrs == pytest.approx(expected.after.msrs, rel=1e-6)
    assert (found.before.accuracy, found.after.accuracy) == (
        expected.before.accuracy,
        expected.after.accuracy,
    )
    assert found.evaluated == expected.evaluated
    assert found.agreement.value == pytest.approx(expected.agreement.value)
    assert found.agreement.relative_l2 == pytest.approx(expected.agreement.relative_l2, rel=1e-4)


def test_what_was_judged_by_runs_is_held_against_no_other_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "_LEAST_MACS", 0)
    bench = opened()
    judging.analyze_and_answer(bench, EVERY)
    assert bench.answers is not None
    assert bench.answers.complete
    bench.evaluator()
    assert bench.answers is None


def answers(bench: Workbench) -> Answers | None:
    judging.analyze_and_answer(bench, EVERY)
    return bench.answers


def test_answers_that_another_run_would_not_give_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answers(opened()) is None  # a small model, whose pass costs little
    monkeypatch.setattr(judging, "_LEAST_MACS", 0)
    kept = answers(bench := opened())
    assert kept is not None
    monkeypatch.setattr(judging, "_MOST_BYTES", 100)
    assert answers(opened()) is None
    monkeypatch.setattr(judging, "_MOST_BYTES", 1 << 26)
    few = Workbench(bench.model, bench.data, CPU)
    judging.analyze_and_answer(few, rt.AnalysisSettings(samples=8, batches=1))
    assert few.answers is None  # some of the samples that judge were not measured


def test_runs_of_other_sizes_are_not_put_together() -> None:
    model = rt.load(MODELS / "resnet_digits.onnx")
    kept = Answers(model, CPU, ["y"], np.array([0, 1, 2]))
    kept.record(np.array([0, 1]), {"x": np.zeros((2, 5))}, {"y": np.array([[1.0], [2.0]])})
    assert not kept.complete
    kept.record(np.array([2, 2]), {"x": np.zeros((2, 5))}, {"y": np.array([[3.0], [4.0]])})
    assert kept.complete
    np.testing.assert_array_equal(kept.of(np.array([2, 0]))["y"], [[4.0], [1.0]])
    kept.record(np.array([1, 3]), {"x": np.zeros((2, 6))}, {"y": np.array([[5.0], [6.0]])})
    assert not kept.complete

"""Which repair is kept: losses of each are given, and the decision follows from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from math import sqrt
from typing import Any

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.data.arrays import ArrayData
from redtest_onnx.errors import RuntimeUnavailableError
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.repair import repair as module
from redtest_onnx.pruning.repair.distilled import TrainingOffer, UnlabelledTraining
from redtest_onnx.pruning.repair.equations import FINAL_ROWS
from redtest_onnx.pruning.repair.fit import FitSettings, fit_to_original
from redtest_onnx.pruning.repair.refit import ROUNDS, Refit
from redtest_onnx.pruning.repair.repair import Repair, RepairSettings, _standard_error, repair
from redtest_onnx.report.prunings import repair_words
from redtest_onnx.runtime.workbench import Workbench

SAMPLES = 400
Losses = dict[str, tuple[float, float]]


@cache
def bench() -> Workbench:
    net = Net(x=("n", 5))
    x = net("MatMul", "x", net.weight(5, 5))
    for _ in range(3):
        x = net("Add", x, net("MatMul", net("Relu", net("MatMul", x, net.weight(5, 4))), net.weight(4, 5)))
    model = net.model(net("MatMul", x, net.weight(5, 3), name="y"))
    values = np.random.default_rng(0).normal(size=(SAMPLES, 5)).astype(np.float32)
    return Workbench(model, ArrayData.in_memory("drawn", {"x": values}), rt.RunOptions("cpu", 1))


def plan() -> Plan:
    layer = next(layer for layer in bench().layers() if layer.action == "bypass")
    return Plan("test", bench().digest, (Step.of(layer),))


class Judge:
    """Gives losses that were said, to models in the order in which they come."""

    reads_inside = False
    reference = "the original"

    def __init__(self, losses: Sequence[tuple[float, float]]) -> None:
        self.losses = list(losses)

    def evaluate(self, candidate: object) -> Any:
        loss, distance = self.losses.pop(0)
        return _Result(loss, _Distance(distance))


class _Distance:
    def __init__(self, relative_l2: float) -> None:
        self.relative_l2 = relative_l2


class _Result:
    def __init__(self, loss: float, agreement: _Distance) -> None:
        self.loss, self.agreement = loss, agreement


fits: list[FitSettings] = []
"""Settings of the fits that were asked for, the last ones."""
REFITS = {name: (Refit(name, 0.5, 1.0, 1, 1, 1),) for name in ("refit", "adapter", "distil")}


def decided(
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    *losses: float | tuple[float, float],
    failing: Sequence[str] = (),
    allows: Callable[[int], bool] = lambda k: True,
    offer: TrainingOffer | None = None,
    max_drop: float | None = None,
) -> tuple[Repair, list[str]]:
    """What is done where plain removal and the repairs have these losses, and which repairs were tried."""
    pairs = [loss if isinstance(loss, tuple) else (loss, loss) for loss in losses]
    judge, tried = Judge(pairs), list[str]()
    fits.clear()

    def fitted(bench: Workbench, pruned: rt.Model, plan: Plan, settings: FitSettings, *_: Any) -> Any:
        tried.append(settings.method)
        fits.append(settings)
        if settings.method in failing:
            raise rt.InputError("no luck")
        return pruned, REFITS[settings.method]

    def trained(bench: Workbench, model: rt.Model, *_: Any) -> Any:
        tried.append("training")
        if "training" in failing:
            raise RuntimeUnavailableError("no PyTorch")
        return model, UnlabelledTraining(3, 1.0, 0.5, 0.25)

    monkeypatch.setattr(module, "fit_to_original", fitted)
    monkeypatch.setattr(module, "distilled", trained)
    monkeypatch.setattr(module, "drop", lambda reference, result: result.loss)
    monkeypatch.setattr(Workbench, "evaluator", lambda self, indices=None: judge)
    monkeypatch.setattr(module, "require_trainable", lambda model: None)
    found_offer = offer or TrainingOffer(1.0, True, False)
    monkeypatch.setattr(module, "training_offer", lambda *_: found_offer)
    pruned = apply_plan(bench(), plan())
    count = iter(range(9))
    _, found = repair(
        bench(),
        pruned,
        plan(),
        RepairSettings(method, max_drop=max_drop),
        allows=lambda candidate: allows(next(count)),  # type: ignore[arg-type]
    )
    assert not judge.losses
    return found, tried


def sizes() -> tuple[int, int]:
    return len(bench().splits.fit), len(bench().splits.choose)


def test_a_repair_that_is_better_is_kept_with_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    found, tried = decided(monkeypatch, "refit", 0.5, 0.25)
    figures = {"difference_plain": 0.5, "difference": 0.25}
    assert found == Repair("refit", REFITS["refit"], *sizes(), 0.5, 0.25, **figures)
    assert tried == ["refit"]
    worse, _ = decided(monkeypatch, "refit", 0.25, 0.5)
    assert (worse.method, worse.loss_plain, worse.loss) == ("refit", 0.25, 0.5)  # it was asked for
    adapter, tried = decided(monkeypatch, "adapter", 0.5, 0.25)
    assert (adapter.method, adapter.refits, tried) == ("adapter", REFITS["adapter"], ["adapter"])


def test_auto_tries_adapters_where_a_refit_loses_something(monkeypatch: pytest.MonkeyPatch) -> None:
    found, tried = decided(monkeypatch, "auto", 0.9, 0.5, 0.1)
    assert (found.method, found.loss, tried) == ("adapter", 0.1, ["refit", "adapter"])
    assert [(len(fit.fit), fit.effort.rounds, fit.kernel) for fit in fits] == [(sizes()[0], ROUNDS, 1)] * 2
    found, tried = decided(monkeypatch, "auto", 0.9, 0.0)
    assert (found.method, found.loss, tried) == ("refit", 0.0, ["refit"])
    one = 1 / sizes()[1]
    found, tried = decided(monkeypatch, "auto", 0.9, 0.9 * one)
    assert tried == ["refit"]  # less than one sample tells


def test_auto_takes_an_adapter_only_where_samples_tell_it_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    error = _standard_error(0.5, sizes()[1])
    found, _ = decided(monkeypatch, "auto", 0.9, 0.5, 0.5 - 0.99 * error)
    assert (found.method, found.loss) == ("refit", 0.5)
    found, _ = decided(monkeypatch, "auto", 0.9, 0.5, 0.5 - 1.01 * error)
    assert found.method == "adapter"


def test_auto_keeps_plain_removal_where_no_repair_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = decided(monkeypatch, "auto", 0.5, 0.5, 0.5)
    assert (found.method, found.loss, found.loss_plain) == ("none", 0.5, 0.5)
    assert found.reason == "no repair was better on held-out samples"
    assert found.refits == ()  # nothing that was refitted is kept
    assert (found.fitted_on, found.held_out) == sizes()
    assert found.offer == TrainingOffer(1.0, True, False)
    nearer, _ = decided(monkeypatch, "auto", (0.5, 0.4), (0.5, 0.3), (0.5, 0.3))
    assert nearer.method == "refit"  # the outputs decide where losses are the same


def test_a_repair_that_was_asked_for_and_makes_it_worse_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    worse, _ = decided(monkeypatch, "refit", (0.5, 0.2), (0.6, 0.9))
    assert worse.method == "refit"
    assert "by 90%, by 20% without), which makes it worse; --repair auto keeps" in repair_words(worse)
    better, _ = decided(monkeypatch, "refit", (0.5, 0.9), (0.6, 0.2))
    assert "worse" not in repair_words(better)


def test_less_than_the_noise_of_the_losses_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = _standard_error(0.5, sizes()[1])
    more, _ = decided(monkeypatch, "auto", (0.5, 0.9), (0.5 + 0.9 * noise, 0.2), (0.9, 0.9))
    assert (more.method, more.difference_plain, more.difference) == ("refit", 0.9, 0.2)
    assert "outputs differ from the original's by 20%, by 90% without" in repair_words(more)
    worse, _ = decided(monkeypatch, "auto", (0.5, 0.9), (0.5 + 1.1 * noise, 0.2), (0.9, 0.9))
    assert worse.method == "none"
    farther, _ = decided(monkeypatch, "auto", (0.5, 0.2), (0.5 - 0.9 * noise, 0.9), (0.9, 0.9))
    assert farther.method == "none"


def test_training_that_can_not_be_done_leaves_the_refit(monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = TrainingOffer(1.0, True, True)
    found, tried = decided(monkeypatch, "auto", 0.9, 0.5, 0.9, offer=accepted, failing=["training"])
    assert (found.method, tried) == ("refit", ["refit", "training", "adapter"])


def test_a_repair_that_fails_or_is_too_large_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found, tried = decided(monkeypatch, "auto", 0.5, 0.1, failing=["refit"])
    assert (found.method, tried) == ("adapter", ["refit", "adapter"])
    found, _ = decided(monkeypatch, "auto", 0.5, failing=["refit", "adapter"])
    assert found == Repair("none", (), *sizes(), 0.5, 0.5, "refit failed: no luck; adapter failed: no luck")
    found, _ = decided(monkeypatch, "auto", 0.5, 0.1, allows=lambda k: k == 1)
    assert found.method == "adapter"
    found, _ = decided(monkeypatch, "refit", 0.5, allows=lambda k: False)
    assert found.reason == "with refit the result would be larger than it may be"


def test_training_is_offered_from_twice_the_noise_on(monkeypatch: pytest.MonkeyPatch) -> None:
    count = sizes()[1]
    limit = next(k / 1000 for k in range(1, 1000) if k / 1000 >= 2 * _standard_error(k / 1000, count))
    found, _ = decided(monkeypatch, "auto", 0.9, limit, 0.9)
    assert found.offer is not None
    found, _ = decided(monkeypatch, "auto", 0.9, limit - 0.001, 0.9)
    assert found.offer is None


def test_training_that_is_accepted_is_kept_where_it_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = TrainingOffer(1.0, True, True)
    found, tried = decided(monkeypatch, "auto", 0.9, 0.5, 0.3, offer=accepted)
    assert tried == ["refit", "training"]
    training = UnlabelledTraining(3, 1.0, 0.5, 0.25)
    figures = {"difference_plain": 0.9, "difference": 0.3}
    assert found == Repair("distil", REFITS["refit"], *sizes(), 0.9, 0.3, training=training, **figures)
    found, tried = decided(monkeypatch, "auto", 0.9, 0.5, 0.5, 0.9, offer=accepted)
    assert tried == ["refit", "training", "adapter"]
    assert (found.method, found.loss, found.training, found.offer) == ("refit", 0.5, training, None)


def test_distillation_follows_a_short_refit(monkeypatch: pytest.MonkeyPatch) -> None:
    found, tried = decided(monkeypatch, "distil", 0.9, 0.5, 0.3)
    assert tried == ["distil", "training"]
    assert (found.method, found.loss, found.loss_plain) == ("distil", 0.3, 0.9)
    assert found.fitted_on == min(sizes()[0], 768)
    assert [(len(fit.fit), fit.effort.rounds) for fit in fits] == [(min(sizes()[0], 768), 1)]
    monkeypatch.setattr(module, "REFIT_SAMPLES", 50)
    few, _ = decided(monkeypatch, "distil", 0.9, 0.5, 0.3)
    assert few.fitted_on == 50
    np.testing.assert_array_equal(fits[0].fit, bench().splits.fit[:50])


@pytest.mark.parametrize(("whole", "loss"), [(0.45, 0.45), (0.5, 0.5), (0.6, 0.5)])
def test_where_training_is_no_better_the_better_refit_is_given(
    monkeypatch: pytest.MonkeyPatch, whole: float, loss: float
) -> None:
    worse, tried = decided(monkeypatch, "distil", 0.9, 0.5, 0.5, whole)
    assert tried == ["distil", "training", "refit"]
    assert (worse.method, worse.loss) == ("refit", loss)
    assert worse.training is not None
    assert worse.fitted_on == (sizes()[0] if whole < 0.5 else min(sizes()[0], 768))
    assert worse.refits == REFITS["refit" if whole < 0.5 else "distil"]


def test_nothing_is_repaired_where_nothing_is_to_be() -> None:
    pruned = apply_plan(bench(), plan())
    _, found = repair(bench(), pruned, plan(), RepairSettings("none"))
    assert found == Repair("none", reason="not asked for")
    kept, found = repair(bench(), bench().model, replace(plan(), steps=()), RepairSettings("refit"))
    assert found == Repair("none", reason="nothing was removed")
    assert kept.model is bench().model
    invented = Workbench(bench().model, rt.open_data(None, bench().model, count=30), bench().options)
    _, found = repair(invented, pruned, plan(), RepairSettings("auto"))
    assert found == Repair("none", reason="synthetic inputs tell nothing about the data the model works on")


@pytest.mark.parametrize(
    ("loss", "samples", "expected"),
    [
        (0.5, 100, 0.05),
        (0.2, 100, 0.04),
        (0.0, 100, 0.01),  # no less than one sample
        (1.0, 100, 0.01),
        (-0.5, 100, 0.01),
        (7.0, 100, 0.01),
        (0.5, 0, 1.0),
        (0.5, 1, 1.0),
        (0.5, 4, sqrt(0.0625)),
    ],
)
def test_the_standard_error_of_a_share(loss: float, samples: int, expected: float) -> None:
    assert _standard_error(loss, samples) == pytest.approx(expected)


def test_settings_of_a_fit_are_those_of_a_last_one() -> None:
    settings = FitSettings("refit", np.arange(3))
    assert (
        (settings.kernel, settings.effort.rounds, settings.effort.density)
        == (1, ROUNDS, FINAL_ROWS)
        == (1, 3, 300)
    )
    assert RepairSettings().method == "auto"
    assert RepairSettings().kernel == 1
    with pytest.raises(rt.InputError, match="kernel"):
        RepairSettings(kernel=2)  # type: ignore[arg-type]


def test_adapters_are_put_in_and_fitted_in_one_round() -> None:
    pruned = apply_plan(bench(), plan())
    fit = bench().splits.fit
    told: list[tuple[int, int, str]] = []
    model, refits = fit_to_original(
        bench(), pruned, plan(), FitSettings("adapter", fit), lambda *step: told.append(step)
    )
    assert {refit.rounds for refit in refits} == {0}
    plain, others = fit_to_original(bench(), pruned, plan(), FitSettings("refit", fit))
    assert len(plain.graph.node) == len(pruned.graph.node) <= len(model.graph.node)
    assert max(refit.rounds for refit in others) > 0
    assert told == [(k, len(told) - 1, "repairing") for k in range(len(told))]
    assert len(told) >= len(refits) > 0


def test_what_loses_more_than_it_may_gives_way_to_the_short_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is: a refit, one with training behind it, or plain removal."""
    found, tried = decided(monkeypatch, "refit", 0.9, 0.5, 0.005, max_drop=0.01)
    assert (found.method, found.loss, tried) == ("refit", 0.005, ["refit"] * 2)
    accepted = TrainingOffer(1.0, True, True)
    found, tried = decided(monkeypatch, "auto", 0.9, 0.5, 0.3, 0.005, offer=accepted, max_drop=0.01)
    assert (found.method, found.loss, tried) == ("refit", 0.005, ["refit", "training", "refit"])
    assert found.training == UnlabelledTraining(3, 1.0, 0.5, 0.25)
    found, tried = decided(monkeypatch, "auto", 0.9, 0.5, 0.6, 0.005, max_drop=0.01)
    assert (found.loss, tried) == (0.005, ["refit", "adapter", "refit"])
    assert found.offer == TrainingOffer(1.0, True, False)  # which is told as without a limit
    found, tried = decided(monkeypatch, "auto", 0.9, 0.5, 0.6, 0.1, max_drop=0.01)
    assert (found.method, found.loss) == ("refit", 0.5)  # the short fit breaks the limit, too
    found, tried = decided(monkeypatch, "distil", 0.9, 0.5, 0.3, 0.005, max_drop=0.01)
    assert (found.method, found.loss, tried) == ("refit", 0.005, ["distil", "training", "refit"])
    assert "is not kept: held-out samples lose no less with it" in repair_words(found)


def test_an_adapter_within_the_limit_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    found, tried = decided(monkeypatch, "auto", 0.9, 0.5, 0.005, max_drop=0.01)
    assert (found.method, found.loss, tried) == ("adapter", 0.005, ["refit", "adapter"])

"""What `plan` and `rewrite` may choose from: adapters only where data can fit them, limits, criteria."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.errors import SettingError
from redtest_onnx.pruning.best_of import best_plan, planner, repaired_error
from redtest_onnx.pruning.budget import Budget, Losses, make_plan, no_candidates
from redtest_onnx.pruning.criteria.base import CriterionContext
from redtest_onnx.pruning.limits import Limits
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.prune import PruneSettings, plan, rewrite
from redtest_onnx.runtime.workbench import Workbench

CPU = rt.RunOptions("cpu", 1)
QUICK = rt.AnalysisSettings(samples=16, batches=2)


@cache
def network() -> rt.Model:
    """Two layers that keep the shape, and one that doubles it with many parameters."""
    net = Net(x=("n", 4))
    x = net("MatMul", "x", net.weight(4, 4))
    for k in range(2):
        x = net("Add", x, net("MatMul", net("Relu", x), net.weight(4, 4)), name=f"keep{k}")
    wide = net("Relu", net("MatMul", x, net.weight(4, 40)))
    x = net("Add", net("MatMul", wide, net.weight(40, 8)), net("MatMul", x, net.weight(4, 8)), name="wider")
    for k in range(2):
        x = net("Add", x, net("MatMul", net("Relu", x), net.weight(8, 8)), name=f"late{k}")
    return net.model(net("MatMul", x, net.weight(8, 2), name="y"))


@cache
def bench(*, real: bool) -> Workbench:
    values = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    data = rt.open_data({"x": values} if real else None, network(), **({} if real else {"count": 60}))
    return Workbench(network(), data, CPU)


def settings(criterion: str = "tail", repair: str = "auto") -> PruneSettings:
    return PruneSettings(criterion, QUICK, repair=repair)  # type: ignore[arg-type]


def actions(*, real: bool, repair: str) -> list[str]:
    context = CriterionContext(bench(real=real), rt.analyze(bench(real=real), settings=QUICK))
    every = [layer.action for layer in context.candidates]
    assert "adapter" in every
    counts = [every.count("bypass"), len(every)]
    for count in counts[::-1]:
        try:
            found, _ = plan(bench(real=real), Budget(remove=count), settings(repair=repair))
        except rt.NegativeVerdictError:
            continue
        return [step.action for step in found.steps]
    return []


@pytest.mark.parametrize(
    ("real", "repair", "adapters"),
    [
        (True, "auto", True),
        (True, "none", True),
        (False, "auto", False),
        (False, "refit", False),
        (False, "adapter", True),
        (False, "reinit", True),
    ],
)
def test_layers_that_need_an_adapter_go_where_one_can_be_fitted(
    real: bool, repair: str, adapters: bool
) -> None:
    found = actions(real=real, repair=repair)
    assert ("adapter" in found) is adapters
    assert found.count("bypass") > 0


def test_a_limit_of_loss_is_searched_and_told() -> None:
    told: list[tuple[int, int, str]] = []
    found, analysis = plan(
        bench(real=True), Budget(max_drop=1.0), settings(), progress=lambda *step: told.append(step)
    )
    assert len(found.steps) == sum(layer.removable for layer in analysis.layers)
    assert (0, 1, "trying removals") in told
    told.clear()
    again, same = plan(
        bench(real=True), Budget(remove=1), settings(), analysis=analysis, progress=lambda *s: told.append(s)
    )
    assert same is analysis
    assert len(again.steps) == 1
    assert (0, 1, "trying removals") not in told


def test_settings_name_the_criteria_there_are() -> None:
    with pytest.raises(SettingError, match="criterion"):
        PruneSettings("tial")
    assert PruneSettings() == PruneSettings("redtest", repair="auto", kernel=1)


def test_nothing_removed_is_the_very_model() -> None:
    told: list[tuple[int, int, str]] = []
    empty = Plan("test", bench(real=True).digest, ())
    found, repair = rewrite(bench(real=True), empty, progress=lambda *step: told.append(step))
    assert found.model.sha256 == network().sha256
    assert repair.reason == "nothing was removed"
    assert told[0] == (0, 4, "rewriting")


def test_a_repair_that_would_be_larger_is_left_out() -> None:
    layer = next(layer for layer in bench(real=True).layers() if layer.action == "bypass")
    chosen = Plan("test", bench(real=True).digest, (Step.of(layer),))
    own = bench(real=True)
    _, repair = rewrite(own, chosen, settings(repair="adapter"), limits=Limits(own, (("params", 0.01),)))
    assert repair.method == "none"
    assert repair.reason == "with adapter the result would be larger than it may be"


@cache
def context() -> CriterionContext:
    return CriterionContext(bench(real=True), rt.analyze(bench(real=True), settings=QUICK))


def test_the_arbiter_is_called_as_any_criterion_is() -> None:
    assert planner("best-of") is best_plan
    found = planner("tail")(context(), Budget(remove=1))
    assert found == make_plan(context(), Budget(remove=1), "tail")
    assert found.criterion == "tail"


def test_of_equal_plans_the_first_contenders_is_taken_without_a_fit() -> None:
    told: list[str] = []
    every = sum(layer.action == "bypass" for layer in context().candidates)
    found = best_plan(context(), Budget(remove=every), progress=lambda done, total, what: told.append(what))
    assert len(found.steps) == every
    zero = best_plan(context(), Budget(max_drop=0.5), losses=Losses(lambda plan: 9.0))
    assert not zero.steps


def test_an_error_behind_a_refit_is_that_of_held_out_outputs() -> None:
    layers = [layer for layer in context().candidates if layer.action == "bypass"]
    one, two = (
        Plan("t", bench(real=True).digest, tuple(map(Step.of, part))) for part in (layers[:1], layers[:3])
    )
    errors = [repaired_error(bench(real=True), chosen) for chosen in (one, two)]
    assert 0 <= errors[0] < errors[1] < 2
    broken = Plan("t", bench(real=True).digest, (Step("gone", "x", "nowhere", "bypass", None, 0, 0),))
    assert repaired_error(bench(real=True), broken) == float("inf")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"remove": 0}, "0 layers were asked for"),
        ({"threshold": 0.25}, "no layer that can go scores at least 0.25; a lower @threshold takes more"),
        ({"remove": 2}, "no layer is a candidate; 1 needs an adapter: give samples to fit it to (@data)"),
    ],
)
def test_why_there_is_no_candidate(limits: dict[str, float], words: str) -> None:
    budget = Budget(**limits)  # type: ignore[arg-type]
    found = no_candidates(context(), lambda layer: layer.action != "adapter", "tail", budget)
    assert found.startswith(words)
    kept = no_candidates(context(), lambda layer: True, "tail", Budget(remove=1, protect=("*",)))
    assert kept == "no layer is a candidate; @protect keeps what could be removed"
    assert no_candidates(context(), lambda layer: True, "tail", Budget(remove=1)) == "no layer is a candidate"

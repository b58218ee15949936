from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import redtest_onnx as rt
from redtest_onnx.data.dataset import Subset
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.criteria.base import CriterionContext, ScoredLayer, proposals
from redtest_onnx.pruning.targets import QUANTITIES, Quantities, TargetSearch, _cheapest, _costs
from redtest_onnx.runtime.workbench import Workbench

MODELS = Path(__file__).parents[2] / "models"
CPU = rt.RunOptions(device="cpu", threads=1)


@cache
def case(name: str) -> tuple[rt.Model, rt.Dataset, rt.Analysis]:
    model = rt.load(MODELS / f"{name}_digits.onnx")
    data = Subset(rt.open_data(MODELS / "digits.npz", model), np.arange(160))
    return model, data, rt.analyze(model, data, rt.AnalysisSettings(samples=32, batches=2), CPU)


def planned(name: str, *targets: tuple[str, float], criterion: str = "redtest") -> tuple[rt.Plan, rt.Model]:
    model, data, analysis = case(name)
    bench = Workbench(model, data, CPU)
    plan = rt.plan(bench, settings=rt.PruneSettings(criterion), targets=targets, analysis=analysis)
    return plan, apply_plan(bench, plan)


def test_the_file_gets_as_small_as_asked() -> None:
    plan, pruned = planned("resnet", ("size", 0.6))
    assert plan.steps
    assert pruned.file_bytes <= 0.6 * case("resnet")[0].file_bytes


def test_peak_memory_is_looked_at_on_the_pruned_graph() -> None:
    """In a chain whose first layers hold the peak, only their removal lowers it."""
    model, data, _ = case("vgg")
    before = Workbench(model, data, CPU).cost
    with pytest.raises(rt.NegativeVerdictError, match="memory"):
        planned("vgg", ("memory", 0.2))
    _, pruned = planned("vgg", ("memory", 1.0))
    after = Workbench(pruned, data, CPU).cost
    assert after.peak_activation_bytes == before.peak_activation_bytes


@pytest.mark.parametrize("criterion", ["redtest", "recoverable", "output-effect"])
def test_several_targets_hold_together_and_no_layer_is_needless(criterion: str) -> None:
    model, data, _ = case("resnet")
    plan, _ = planned("resnet", ("params", 0.7), ("macs", 0.8), criterion=criterion)
    cost = Workbench(model, data, CPU).cost
    assert cost.macs is not None

    def met(steps: list[rt.pruning.plan.Step]) -> bool:  # type: ignore[name-defined]
        params = sum(step.parameters for step in steps) / cost.parameters
        macs = sum(step.macs or 0 for step in steps) / (cost.macs or 1)
        return params >= 0.3 and macs >= 0.2

    steps = list(plan.steps)
    assert met(steps)
    assert not any(met([other for other in steps if other is not step]) for step in steps)


def test_a_latency_target_takes_out_some_layers_but_not_all() -> None:
    model, _, analysis = case("resnet")
    plan, pruned = planned("resnet", ("latency", 0.75))
    assert 2 <= len(plan.steps) < sum(layer.removable for layer in analysis.layers)
    assert pruned.outputs == model.outputs


def test_a_latency_out_of_reach_is_a_negative_verdict() -> None:
    with pytest.raises(rt.NegativeVerdictError, match=r"latency=0\.01 can't be reached"):
        planned("vgg", ("latency", 0.01))


class Device(Quantities):
    """Layers that take a tenth of the time each when run alone; without one, another share is saved."""

    def __init__(self, bench: Workbench, saved: float) -> None:
        super().__init__(bench)
        self.saved_each = saved
        self.tries: list[int] = []

    def latencies(self, layers: Sequence[Layer]) -> list[float]:
        return [0.1] * len(layers)

    def left(self, quantity: str, chosen: Sequence[ScoredLayer]) -> float:
        if quantity != "latency":
            return super().left(quantity, chosen)
        self.tries.append(len(chosen))
        return 1 - self.saved_each * len(chosen)


@pytest.mark.parametrize(
    ("target", "saved", "tries"),
    [
        (0.7, 0.1, [3]),  # as each said by itself
        (0.8, 0.025, [2, 8]),  # a quarter of it: what the first try saved tells how many it takes
        (0.61, 0.2, [4, 2]),  # twice as much
    ],
)
def test_what_a_plan_saved_corrects_what_single_layers_promised(
    target: float, saved: float, tries: list[int]
) -> None:
    model, data, analysis = case("resnet")
    bench = Workbench(model, data, CPU)
    context = CriterionContext(bench, analysis)
    device = Device(bench, saved)
    search = TargetSearch(context, "redtest", (("latency", target),), device)
    chosen = search.run(iter(proposals("redtest", context)))
    assert device.tries == tries
    assert len(chosen) == tries[-1]
    assert target - 0.04 <= device.left("latency", chosen) <= target + 0.01


def test_a_latency_that_no_plan_comes_near_is_refused_with_the_nearest() -> None:
    model, data, analysis = case("vgg")
    bench = Workbench(model, data, CPU)
    context = CriterionContext(bench, analysis)
    device = Device(bench, 0.001)
    search = TargetSearch(context, "redtest", (("latency", 0.9),), device)
    with pytest.raises(rt.NegativeVerdictError, match=r"without \d+ layers 0\.99 is left"):
        search.run(iter(proposals("redtest", context)))
    assert len(device.tries) <= 6


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.9, 0.4, 1.0], [0.1, 0.6, 0.0]),  # similarities
        ([-3.0, -1.0, 0.0], [3.0, 1.0, 0.0]),  # effects
        ([-3.0, -1.0], [3.0, 1.0]),
        ([7.0, 5.0], [0.0, 2.0]),  # positions
        ([], []),
    ],
)
def test_costs_are_what_scores_stay_behind_the_best(scores: list[float], expected: list[float]) -> None:
    layer = case("resnet")[2].layers[0]
    assert _costs([ScoredLayer(layer, score) for score in scores]) == pytest.approx(expected)


def test_the_knapsack_is_exact() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        costs, savings = rng.random(8), rng.random(8)
        needed = 0.5 * savings.sum()
        picks = list(_cheapest(costs, savings, needed, range(0)))
        every = [
            chosen
            for mask in range(256)
            if savings[chosen := [k for k in range(8) if mask >> k & 1]].sum() >= needed
        ]
        assert savings[picks].sum() >= needed - 1e-6
        assert costs[picks].sum() <= min(costs[chosen].sum() for chosen in every) + 1e-6


def test_every_quantity_is_known() -> None:
    assert set(QUANTITIES) == {"params", "macs", "size", "memory", "latency"}


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("criterion", ["redtest", "spread"])
def test_a_target_without_candidates_is_out_of_reach(criterion: str, quantity: str) -> None:
    """Latency, too: there is nothing to time then."""
    model, data, analysis = case("resnet")
    with pytest.raises(rt.NegativeVerdictError, match=f"target {quantity}=0.5 can't be reached: no removal"):
        rt.plan(
            Workbench(model, data, CPU),
            settings=rt.PruneSettings(criterion),
            targets=((quantity, 0.5),),
            protect="*",
            analysis=analysis,
        )

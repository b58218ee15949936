"""How targets choose layers, on blocks whose sizes are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.budget import Budget, drop, make_plan, protected_by
from redtest_onnx.pruning.criteria.base import CriterionContext, ScoredLayer
from redtest_onnx.pruning.limits import Limits
from redtest_onnx.pruning.rounds import _shares_so_far, _still
from redtest_onnx.pruning.targets import Quantities, TargetSearch, plan_of, unreachable
from redtest_onnx.runtime.workbench import Workbench

CPU = rt.RunOptions("cpu", 1)


@cache
def bench() -> Workbench:
    """Blocks of 8, 16, 24 and 32 parameters and as many multiply-accumulates."""
    net = Net(x=("n", 4))
    x = net("MatMul", "x", net.weight(4, 4))
    for k in range(1, 5):
        wide = net("Relu", net("MatMul", x, net.weight(4, k)))
        x = net("Add", x, net("MatMul", wide, net.weight(k, 4)), name=f"block{k}")
    model = net.model(net("MatMul", x, net.weight(4, 2), name="y"))
    values = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    return Workbench(model, rt.open_data({"x": values}, model), CPU)


@cache
def context() -> CriterionContext:
    return CriterionContext(bench(), rt.analyze(bench(), settings=rt.AnalysisSettings(samples=32, batches=2)))


def blocks() -> list[Layer]:
    return [layer for layer in bench().layers() if layer.action == "bypass"]


def ranking(*order: int, scores: Sequence[float] = (4, 3, 2, 1)) -> list[ScoredLayer]:
    return [ScoredLayer(blocks()[k], score) for k, score in zip(order, scores, strict=False)]


def search(*targets: tuple[str, float], quantities: Quantities | None = None) -> TargetSearch:
    return TargetSearch(context(), "mine", targets, quantities or Quantities(bench()))


def indices(chosen: Sequence[ScoredLayer]) -> list[int]:
    return [blocks().index(item.layer) for item in chosen]


TOTAL = 16 + 8 + 16 + 24 + 32 + 8


def test_a_plan_is_in_the_order_of_the_graph_with_scores() -> None:
    found = plan_of(bench(), "mine", ranking(2, 0, 3))
    assert [step.region for step in found.steps] == [blocks()[k].name for k in (0, 2, 3)]
    assert [step.score for step in found.steps] == [3, 4, 2]
    assert (found.criterion, found.model_sha256) == ("mine", bench().digest)


def test_shares_that_are_left_and_saved() -> None:
    known = Quantities(bench())
    assert bench().cost.parameters == TOTAL
    assert known.left("params", ranking(0, 3)) == pytest.approx(1 - 40 / TOTAL)
    assert known.left("macs", ranking(0, 3)) == pytest.approx(1 - 40 / TOTAL)
    assert known.left("params", []) == known.left("size", []) == known.left("memory", []) == 1
    pruned = plan_of(bench(), "x", ranking(3))
    small = apply_plan(bench(), pruned)
    assert known.left("size", ranking(3)) == small.file_bytes / bench().model.file_bytes < 1
    layer = blocks()[1]
    assert known.saved("params", layer) == known.saved("size", layer) == pytest.approx(16 / TOTAL)
    assert known.saved("macs", layer) == pytest.approx(16 / TOTAL)
    assert known.saved("memory", layer) == known.saved("latency", layer) == 0
    assert known.saved("macs", replace(layer, macs=None)) == 0
    known._totals["macs"] = None  # type: ignore[assignment]
    assert known.saved("macs", layer) == 16  # of no known total
    with pytest.raises(rt.InputError, match="the model's number of MACs can't be told"):
        known.left("macs", ranking(0))


def test_a_latency_is_taken_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from redtest_onnx.pruning import targets as module
    from redtest_onnx.runtime.latency import Latency

    pair = [Latency(4.0, 5.0, 6.0, 9), Latency(3.0, 5.0, 6.0, 9, error=0.125)]
    monkeypatch.setattr(module, "measure_latency", lambda benches: pair)
    assert Quantities(bench()).left("latency", ranking(0)) == 3 / 4 * 1.125


def test_layers_are_taken_until_a_target_is_met_exactly() -> None:
    share = 1 - (8 + 16) / TOTAL
    assert indices(search(("params", share + 1e-12)).run(iter(ranking(0, 1, 2, 3)))) == [0, 1]
    assert indices(search(("params", share - 1e-9)).run(iter(ranking(0, 1, 2, 3)))) == [0, 2]
    assert search(("params", 1.0)).run(iter(ranking(0, 1))) == []


def test_what_became_needless_is_given_back_the_costliest_first() -> None:
    share = 1 - 32 / TOTAL
    found = search(("params", share + 1e-12)).run(iter(ranking(0, 1, 3)))
    assert indices(found) == [3]
    share = 1 - (8 + 32) / TOTAL
    found = search(("params", share + 1e-12)).run(iter(ranking(1, 0, 3, scores=(1, 5, 5))))
    assert indices(found) == [0, 3]


def test_a_target_that_no_layer_is_left_for_is_refused() -> None:
    rest = 1 - 80 / TOTAL
    with pytest.raises(rt.NegativeVerdictError) as error:
        search(("params", 0.001), ("macs", 0.9)).run(iter(ranking(0, 1, 2, 3)))
    assert error.value.what == f"target params=0.001 can't be reached: without 4 layers {rest:.2f} is left"
    assert error.value.where == bench().label


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "no removal lowers it"),
        (1, "without 1 layer 0.50 is left"),
        (2, "without 2 layers 0.50 is left"),
    ],
)
def test_how_far_a_target_was_reached(count: int, words: str) -> None:
    error = unreachable(bench(), "macs", 0.25, 0.5, count)
    assert error.what == f"target macs=0.25 can't be reached: {words}"
    assert "a higher target" in (error.hint or "")


def test_a_layer_is_worth_its_part_of_what_is_missing() -> None:
    found = search(("params", 1 - 32 / TOTAL))
    assert [found.worth(layer) for layer in blocks()] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    half = search(("params", 1 - 16 / TOTAL))
    assert [half.worth(layer) for layer in blocks()] == pytest.approx([0.5, 1.0, 1.0, 1.0])
    both = search(("params", 1 - 32 / TOTAL), ("macs", 1 - 16 / TOTAL))
    assert both.worth(blocks()[0]) == pytest.approx((0.25 + 0.5) / 2)
    assert search(("params", 1.0)).worth(blocks()[0]) == 1.0  # nothing is missing
    assert search(("memory", 0.001)).worth(blocks()[0]) == 1.0  # nothing can be told
    assert search(("memory", 0.001), ("params", 1 - 32 / TOTAL)).worth(blocks()[1]) == pytest.approx(0.5)


class Device(Quantities):
    """Blocks that take a twentieth of the time each by themselves, and save another share together."""

    def __init__(self, saved: float) -> None:
        super().__init__(bench())
        self.each, self.tries = saved, list[list[int]]()

    def latencies(self, layers: Sequence[Layer]) -> list[float]:
        return [0.1] * len(layers)

    def left(self, quantity: str, chosen: Sequence[ScoredLayer]) -> float:
        if quantity != "latency":
            return super().left(quantity, chosen)
        self.tries.append(indices(chosen))
        return 1 - self.each * len(chosen)


def timed(target: float, saved: float, *others: tuple[str, float]) -> tuple[list[int], list[list[int]]]:
    device = Device(saved)
    found = search(("latency", target), *others, quantities=device).run(iter(ranking(0, 1, 2, 3)))
    return indices(found), device.tries


def test_a_latency_takes_the_cheapest_layers() -> None:
    assert timed(0.8, 0.1) == ([0, 1], [[0, 1]])  # highest scores
    assert timed(0.9, 0.0999) == ([0], [[0]])
    with_size = timed(0.8, 0.1, ("params", 1 - 32 / TOTAL + 1e-12))
    assert with_size == ([0, 2], [[0, 2]])  # what goes anyway costs no more


def test_within_the_tolerance_of_a_latency_no_other_plan_is_timed() -> None:
    assert timed(0.9, 0.14) == ([0], [[0]])  # four hundredths below
    assert timed(0.9, 0.09) == ([0], [[0]])  # one above
    found, tries = timed(0.9, 0.08)
    assert (found, tries) == ([0, 1], [[0], [0, 1]])


def test_of_plans_that_miss_a_latency_the_nearest_below_is_taken() -> None:
    found, tries = timed(0.9, 0.2)  # each saves too much
    assert found == [0]
    assert tries == [[0]]
    with pytest.raises(
        rt.NegativeVerdictError, match=r"latency=0\.5 can't be reached: without 4 layers 0\.60"
    ):
        timed(0.5, 0.1)


def test_a_glob_protects_and_must_fit_a_layer() -> None:
    analysis = context().analysis
    names = [layer.name for layer in analysis.layers]
    may_go = protected_by(analysis.layers, ["block[12]", names[-1]])
    assert [name for layer, name in zip(analysis.layers, names, strict=True) if not may_go(layer)] == [
        name for name in names if name in ("block1", "block2", names[-1])
    ]
    assert all(map(protected_by(analysis.layers, ()), analysis.layers))
    with pytest.raises(rt.InputError, match="Block1") as error:
        protected_by(analysis.layers, ["block1", "Block1"])
    assert "'Block1' matches no layer" in error.value.what
    assert repr(names[-1]) in (error.value.hint or "")


@pytest.mark.parametrize(
    ("limits", "max_drop"),
    [
        ({}, 0.01),
        ({"remove": 1}, None),
        ({"remove": 0}, None),
        ({"threshold": 0.0}, None),
        ({"targets": (("params", 0.5),)}, None),
        ({"max_drop": 0.0}, 0.0),
        ({"remove": 2, "max_drop": 0.5}, 0.5),
    ],
)
def test_a_loss_limits_where_nothing_else_does(limits: dict[str, Any], max_drop: float | None) -> None:
    assert Budget(**limits).max_drop == max_drop


@pytest.mark.parametrize(
    "limits",
    [
        {"remove": 1, "threshold": 0.5},
        {"remove": 0, "targets": (("params", 0.5),)},
        {"threshold": 0.0, "targets": (("params", 0.5),)},
    ],
)
def test_limits_that_exclude_each_other(limits: dict[str, Any]) -> None:
    with pytest.raises(rt.InputError, match="exclude each other"):
        Budget(**limits)


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"remove": 2},
        {"targets": (("latency", 0.5),)},
        {"targets": (("params", 0.5), ("size", 0.5))},
        {"targets": (("macs", 0.5),), "max_drop": 0.1},
    ],
)
def test_widths_need_a_target_that_is_counted(limits: dict[str, Any]) -> None:
    with pytest.raises(rt.InputError, match="takes channels until"):
        Budget(width=True, **limits)
    assert Budget(width=True, targets=(("macs", 0.5), ("params", 0.5))).width


def test_budgets_of_keywords_take_mappings_and_single_globs() -> None:
    found = Budget.of(targets={"params": 0.5, "macs": 0.25}, protect="a*")
    assert found == Budget(targets=(("params", 0.5), ("macs", 0.25)), protect=("a*",))
    assert Budget.of(targets=[["size", 0.5]], protect=["a", "b"]).protect == ("a", "b")
    with pytest.raises(rt.InputError, match="limit"):
        Budget.of(removed=3)


def test_a_loss_is_of_accuracy_only_where_it_tells_something() -> None:
    reference = bench().evaluator().reference
    better = replace(reference, accuracy=0.75, accuracy_steers=True)
    worse = replace(better, accuracy=0.5)
    assert drop(better, worse) == 0.25
    agreement = 1 - (worse.agreement.value or 0)
    assert drop(replace(better, accuracy_steers=False), worse) == agreement
    assert drop(replace(better, accuracy=None), worse) == agreement
    assert drop(better, replace(worse, accuracy=None)) == agreement
    none = replace(worse, accuracy=None, agreement=replace(worse.agreement, outputs=()))
    assert drop(better, none) == float("inf")


def test_rounds_come_to_their_shares_one_after_the_other() -> None:
    parts = Budget(targets=(("params", 0.25), ("macs", 0.81))).rounds(2)
    assert _shares_so_far(parts[:1]) == (("params", 0.5), ("macs", pytest.approx(0.9)))
    assert _shares_so_far(parts) == (("params", 0.25), ("macs", pytest.approx(0.81)))
    assert _shares_so_far(()) == ()
    smaller = bench().successor(apply_plan(bench(), plan_of(bench(), "x", ranking(3))))
    left = smaller.cost.parameters / TOTAL
    limits = Limits(bench(), (("params", left / 2), ("macs", 0.99)))
    assert _still(limits, smaller) == (("params", pytest.approx(0.5)), ("macs", 1.0))


def test_a_plan_takes_no_more_than_asked_for() -> None:
    for count in range(4):
        found = make_plan(context(), Budget(remove=count), "tail")
        assert [step.region for step in found.steps] == [layer.name for layer in blocks()[4 - count :]]
        assert (found.reason is None) == bool(count)
    with pytest.raises(rt.NegativeVerdictError, match="5 layers can't be removed: 4"):
        make_plan(context(), Budget(remove=5), "tail")


def test_quantities_that_are_unknown_are_no_limits() -> None:
    class Unknown(Workbench):
        @property
        def cost(self):  # type: ignore[no-untyped-def, override]
            return replace(super().cost, macs=None, peak_activation_bytes=None)

    unknown = Unknown(bench().model, bench().data, CPU)
    for quantity, words in (("macs", "number of MACs"), ("memory", "memory of activations")):
        with pytest.raises(rt.InputError, match=f"the model's {words} can't be told"):
            Limits(bench()).left(quantity, unknown)  # type: ignore[arg-type]
        with pytest.raises(rt.InputError, match=f"the model's {words} can't be told"):
            Limits(unknown).left(quantity, bench())  # type: ignore[arg-type]
    assert not Limits(bench()).larger(unknown)
    assert not Limits(unknown).larger(bench())
    assert Limits(unknown).left("params", bench()) == 1


def test_no_rounds_at_all_are_refused() -> None:
    pytest.importorskip("torch", reason="rounds train")
    from redtest_onnx.pruning.rounds import RoundTraining, prune_in_rounds
    from redtest_onnx.training.settings import TrainingSettings

    with pytest.raises(rt.InputError, match="a number of rounds must be at least 1"):
        prune_in_rounds(bench(), (), RoundTraining(TrainingSettings(epochs=1)))
